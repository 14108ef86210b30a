"""The event loop of the background thread.

asyncio resolves names on an executor that is gone while the interpreter exits, just when the last batch is sent, and
whose threads keep a process alive that waits for a dead resolver. This loop resolves on a daemon thread instead.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import threading
from typing import Any


class Loop(asyncio.SelectorEventLoop):
    """A selector loop whose selector can be found again after a fork."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        super().__init__(self.selector)

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        """Resolve as `socket.getaddrinfo` does, without the default executor."""
        resolved: asyncio.Future[Any] = self.create_future()

        def settle(result: Any, error: OSError | UnicodeError | None) -> None:
            if not resolved.done():
                resolved.set_exception(error) if error is not None else resolved.set_result(result)

        def resolve() -> None:
            result, failed = None, None
            try:
                result = socket.getaddrinfo(host, port, **options)
            except (OSError, UnicodeError) as error:
                failed = error
            try:
                self.call_soon_threadsafe(settle, result, failed)
            except RuntimeError:  # the loop was closed meanwhile: nobody waits for the answer
                return

        try:
            threading.Thread(target=resolve, name="rollout-client-resolver", daemon=True).start()
        except (
            RuntimeError
        ):  # the interpreter is exiting and starts no thread: resolve here, nothing else is left to do
            resolve()
        return await resolved
