"""The event loop of the background thread.

asyncio resolves names on an executor that is gone while the interpreter exits, just when the last batch is sent, and
whose threads keep a process alive that waits for a dead resolver. This loop resolves on a daemon thread instead.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
from typing import Any

from rollout_client import native


class _Selector(selectors.DefaultSelector):
    """Gives up the loop's turn for as long as it waits: a process forks best while nothing is half done."""

    def __init__(self, turn: threading.Lock) -> None:
        super().__init__()
        self._turn = turn

    def select(self, timeout: float | None = None) -> Any:
        self._turn.release()
        try:
            return super().select(timeout)
        finally:
            self._turn.acquire()


class Loop(asyncio.SelectorEventLoop):
    """A selector loop whose selector can be found again after a fork.

    Args:
        turn: held by the thread that runs the loop, but for the moments in which the loop waits.
    """

    def __init__(self, turn: threading.Lock) -> None:
        self.selector = _Selector(turn)
        super().__init__(self.selector)

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        """Resolve as `socket.getaddrinfo` does, without the default executor."""
        resolved: asyncio.Future[Any] = self.create_future()
        look_up = native.original("socket", "getaddrinfo")

        def settle(result: Any, error: OSError | UnicodeError | None) -> None:
            if not resolved.done():
                resolved.set_exception(error) if error is not None else resolved.set_result(result)

        def resolve() -> None:
            result, failed = None, None
            try:
                result = look_up(host, port, **options)
            except (OSError, UnicodeError) as error:
                failed = error
            try:
                self.call_soon_threadsafe(settle, result, failed)
            except RuntimeError:  # the loop was closed meanwhile: nobody waits for the answer
                return

        try:
            native.thread(resolve, "rollout-client-resolver").start()
        except (
            RuntimeError
        ):  # the interpreter is exiting and starts no thread: resolve here, nothing else is left to do
            resolve()
        return await resolved
