"""Threads and locks of the operating system, also where gevent has put greenlets into their place.

The client's thread runs an event loop. As a greenlet it would share its thread with the application, whose own event
loop could not run then, and it would live on in a forked child beside the child's own.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

_LOOK = 0.005


class Thread(Protocol):
    """What the client needs of a thread."""

    def start(self) -> None:
        """Begin; RuntimeError when the process may start no thread (any more)."""

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end."""

    def is_alive(self) -> bool:
        """Whether it was started and has not ended."""


def original(module: str, name: str) -> Any:
    """Return what a module of the standard library offered before gevent replaced it, if it did."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        return monkey.get_original(module, name)
    return getattr(__import__(module), name)


def patched() -> bool:
    """Whether `threading` makes greenlets."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def to_be_patched() -> bool:
    """Whether gevent is there and has replaced nothing yet: a server may have it do so in each worker it forks."""
    return "gevent.monkey" in sys.modules and not patched()


def thread(work: Callable[[], object], name: str) -> Thread:
    """Return a daemon thread of the operating system, not started."""
    return _Native(work) if patched() else _Thread(target=work, name=name, daemon=True)


def lock() -> threading.Lock:
    """Return a lock that stops threads, not greenlets: for what is held only as long as nothing waits."""
    made: threading.Lock = original("_thread", "allocate_lock")()
    return made


def rlock() -> threading.RLock:
    """Return a re-entrant lock of the same sort."""
    made: threading.RLock = original("_thread", "RLock")()
    return made


def pause() -> None:
    """Let another thread run that waits for its turn, now and not after the interpreter's interval."""
    original("time", "sleep")(0)


class _Thread(threading.Thread):
    """A thread that gevent may overtake: servers patch a worker after it was forked with its thread running."""

    def _delete(self) -> None:
        with suppress(KeyError):  # it is not known by the name that a thread of its kind has since
            super()._delete()  # type: ignore[misc]  # private: typeshed leaves it out


class _Native:
    """A thread that `threading` does not know; whoever waits for it lets other greenlets run."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._began = self._ended = False

    def start(self) -> None:
        # gevent makes a hub for each thread at its first need, and two that make theirs for the first time at once wait
        # for each other for ever. From the second on, nothing is imported.
        sys.modules["gevent"].get_hub()
        original("_thread", "start_new_thread")(self._run, ())
        self._began = True

    def join(self, timeout: float | None = None) -> None:
        until = None if timeout is None else time.monotonic() + timeout
        while self.is_alive() and (until is None or time.monotonic() < until):
            time.sleep(_LOOK)

    def is_alive(self) -> bool:
        return self._began and not self._ended

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self._ended = True
