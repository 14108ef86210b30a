"""Signals to end, held back for a moment: what is being started is known once they come, and ended with the rest."""

import contextlib
import signal
import threading
from collections.abc import Iterator

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Hold the first signal to end back until the block is over; outside the main thread none comes anyway.

    Python raises within `Popen` after the fork, and then nobody knows the process that was made.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda sign, _: came.append(sign)) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
