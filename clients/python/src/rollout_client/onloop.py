"""Delivery and sending as tasks of the application's own loop, with no thread that waits and nothing that holds it up.

Files, imports, TLS certificates and large rulesets are left to the loop's executor for the moment they take.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from rollout_client.background import Background, Parts
from rollout_client.lastknown import Cache
from rollout_client.report import explain

_NEEDED = (
    "rollout_client.evaluation.evaluate",
    "httpx",
    "httpx_sse",
    "anyio._backends._asyncio",
    "rollout_client.delivery",
    "rollout_client.sending",
)
"""What takes long to import, and would be imported on the loop, at the latest by the first request."""
_LONGER = 0.5
"""Seconds beyond its timeout that a stop waits for the tasks to end."""


class OnLoop(Background):
    """Runs from `start` until `finish`, or until its loop ends and cancels it."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._task: asyncio.Task[None] | None = None
        self._cancelled = False

    def start(self, forked: bool = False) -> None:
        """Start on the running loop and return.

        Raises:
            RuntimeError: no loop runs here.
        """
        self._task = asyncio.get_running_loop().create_task(self._live(), name="rollout-client")

    async def finish(self, timeout: float) -> None:  # noqa: ASYNC109  (it is that of `close`)
        """Send what is left for at most `timeout` seconds, then end; the rest is counted as dropped."""
        self._until = timeout
        if self._stop is not None:
            self._stop.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=timeout + _LONGER)
            self._task.cancel()
        if self._sender is not None:
            self._sender.count_unsent()

    def leave(self) -> None:
        """In a forked child: let go of the parent's connections. The loop is the application's, which left it too."""
        self._loop = None
        super().leave()

    async def _live(self) -> None:
        parts = self._parts
        try:
            await self._offload(self._prepare)
            await self._main(asyncio.get_running_loop())
        except Exception as error:
            parts.reporter.trouble("background", f"the client stopped: {explain(error)}")
        finally:
            self._loop = None
            self._ended = True
            parts.served.moved = None
            parts.served.abandon()
        if self._cancelled:
            raise asyncio.CancelledError

    def _prepare(self) -> None:
        for name in _NEEDED:
            with suppress(ImportError):  # what is really missing is said by who needs it
                importlib.import_module(name)
        parts = self._parts
        if parts.cache_dir is not None:
            self._cache = Cache(parts.cache_dir, f"{parts.url}\n{parts.identity[0]}", parts.reporter)
        self._read_disk()

    async def _until_stopped(self, stop: asyncio.Event) -> None:
        try:
            await stop.wait()
        except asyncio.CancelledError:  # the loop ends: as at any end of a process, what is left is sent first
            self._cancelled = True
            self._until = self._parts.options.exit_timeout

    async def _offload(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.to_thread(function, *arguments)
