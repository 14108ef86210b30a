"""The life of a process with clients in it: forks, SIGTERM, and the several ways in which Python ends."""

from __future__ import annotations

import atexit
import importlib
import logging  # noqa: F401  (its hooks must be registered before ours, see the end)
import os
import signal
import sys
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from rollout_client import native

if TYPE_CHECKING:
    from rollout_client.background import Background
    from rollout_client.options import Options
    from rollout_client.report import Reporter

_STILL = 1.0
"""Seconds that a fork waits, at most, for the threads of clients to have nothing half done: an import that another
thread has begun is begun for ever in the child."""


class Owner(Protocol):
    """What a client shows of itself to the process it lives in: whoever owns a thread."""

    _options: Options
    _reporter: Reporter
    _background: Background

    def close(self, timeout: float) -> None:
        """Send what is left."""

    def _forked(self) -> None:
        """Begin anew in a child."""


_clients: weakref.WeakSet[Owner] = weakref.WeakSet()
_held = threading.local()
_ending: native.Thread | None = None


def watch(client: Owner) -> None:
    """Look after a client for as long as it lives."""
    _clients.add(client)


def arrange_end(client: Owner) -> None:
    """Have started clients closed when this process ends, in the ways in which `atexit` is not asked."""
    said = _silent_threads()
    if said is not None:
        client._reporter.trouble("threads", said)
    if client._options.handle_sigterm:
        _handle_sigterm()
    _close_with_multiprocessing()
    _close_with_celery()


def may_start() -> bool:
    """Whether this process may have a thread; False in a uWSGI process that is about to fork without telling Python.

    The hook that is set here starts the threads of its workers.
    """
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is None or not hasattr(uwsgi, "worker_id") or uwsgi.worker_id() != 0:
        return True
    former = getattr(uwsgi, "post_fork_hook", None)
    if former is not _after_uwsgi_fork:
        try:
            chain = importlib.import_module("uwsgidecorators").postfork_chain
            if _after_fork_in_child not in chain:
                chain.append(_after_fork_in_child)
        except Exception:  # without a master process it refuses to be imported
            _after_uwsgi_fork.former = former  # type: ignore[attr-defined]  # kept on the hook itself
            uwsgi.post_fork_hook = _after_uwsgi_fork
    return False


def _silent_threads() -> str | None:
    """Return what keeps threads from running in this process, None when nothing does."""
    uwsgi: Any = sys.modules.get("uwsgi")
    options = getattr(uwsgi, "opt", {})
    if uwsgi is None or not options or any(name in options for name in ("enable-threads", "threads")):
        return None
    return "uWSGI runs no threads, so rulesets arrive late and evidence stays behind: start it with --enable-threads"


def _after_uwsgi_fork() -> None:
    _after_fork_in_child()
    former = getattr(_after_uwsgi_fork, "former", None)
    if former is not None:
        former()


def _handle_sigterm() -> None:
    """Handle SIGTERM where nobody does: not the application, not its server, and not a library below Python."""
    if os.name != "posix" or os.getpid() == 1:  # the kernel keeps SIGTERM from the first process of a container
        return
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and not _caught_below_python():
        with suppress(ValueError):  # the main thread of another interpreter
            signal.signal(signal.SIGTERM, _on_sigterm)


def _caught_below_python() -> bool:
    try:
        with open("/proc/self/status", "rb") as status:  # noqa: PTH123
            caught = next(line for line in status if line.startswith(b"SigCgt:"))
    except (OSError, StopIteration):
        return False
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def _on_sigterm(number: int, frame: object) -> None:
    """Send what is left, then end by the same signal.

    Not here: this may have interrupted the main thread while it counts, and what it holds then, sending waits for.
    """
    global _ending
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the process at once
    _ending = native.thread(_end, "rollout-client-ending")
    try:
        _ending.start()
    except RuntimeError:
        os.kill(os.getpid(), signal.SIGTERM)


def _end() -> None:
    try:
        _close_all()
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


def _close_with_multiprocessing() -> None:
    """A child of multiprocessing ends without `atexit`. It forgets what it inherited, then asks who wants to know."""
    util: Any = sys.modules.get("multiprocessing.util")
    if util is None:
        return
    with suppress(Exception):
        util.register_after_fork(_close_all, _close_with_multiprocessing_child)
        if sys.modules["multiprocessing.process"].parent_process() is not None:
            _close_with_multiprocessing_child(None)


def _close_with_multiprocessing_child(_: object) -> None:
    sys.modules["multiprocessing.util"].Finalize(None, _close_all, exitpriority=0)


def _close_with_celery() -> None:
    """A worker process of Celery ends by `os._exit`, and says so before."""
    signals: Any = sys.modules.get("celery.signals")
    if signals is not None:
        with suppress(Exception):
            signals.worker_process_shutdown.connect(_on_celery_shutdown, weak=False, dispatch_uid="rollout_client")


def _on_celery_shutdown(**_: object) -> None:
    _close_all()


def _close_all() -> None:
    for client in list(_clients):
        client.close(client._options.exit_timeout)


def _at_exit() -> None:
    if _ending is None:
        _close_all()
    else:
        _ending.join()  # and end by the signal


def _before_fork() -> None:
    _held.still = [client._background for client in list(_clients) if client._background.hold_still(_STILL)]


def _after_fork_in_parent() -> None:
    for background in _held.still:
        background.go_on()
    _held.still = []


def _after_fork_in_child() -> None:
    global _ending
    _ending = None
    _close_with_multiprocessing()
    _close_with_celery()
    for client in list(_clients):
        client._forked()


# Before a fork, hooks are asked in the reverse order of their registration. Those of logging take a lock that the
# thread of a client may wait for, so they must be asked after ours, which wait for that thread. Nor may that thread
# import logging while a fork waits for it: what is registered then is let go without having been taken.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
