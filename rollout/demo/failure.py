"""The one way in which the demonstration gives up."""


class DemoFailed(Exception):
    """Something is not as it must be; the message says what, in words for people."""
