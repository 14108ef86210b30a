"""Asks, in the process and without a network call, which variant of an AI feature a unit gets."""

__version__ = "0.1.0"
