"""Rampline takes an AI feature from a pilot group to everyone, and takes it back by itself when it does harm."""

__version__ = "0.2.0"
