"""The one thread of a client: delivery, leases, flushes and the disk, as tasks of one event loop.

asyncio and httpx are imported here, on that thread, because they cost more than everything else together.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from rollout_client.bootstrap import read_bootstrap
from rollout_client.fold import Folder
from rollout_client.options import Options
from rollout_client.report import Reporter, Stream, explain
from rollout_client.served import Served

if TYPE_CHECKING:
    import asyncio

    import httpx

    from rollout_client.delivery import Delivery
    from rollout_client.lastknown import Cache
    from rollout_client.loop import Loop
    from rollout_client.sending import Sender

_LOOK_AT_LEASES = 1.0
_KEEP_ON_DISK = 1.0
_END_TASKS = 1.0


class Parts(NamedTuple):
    """What the thread works on and for; `identity` is (environment, process, client) as batches carry it."""

    url: str
    key: str
    identity: tuple[str, str, str]
    cache_dir: str | os.PathLike[str] | None
    bootstrap: str | os.PathLike[str] | None
    options: Options
    reporter: Reporter
    served: Served
    folder: Folder
    changed: Callable[[], None]


class Background:
    """Runs until it is stopped. Everything here but `start`, `stop`, `wake` and `leave` happens on its own thread."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._thread = threading.Thread(target=self._run, name="rollout-client", daemon=True)
        self._lock = threading.Lock()
        self._loop: Loop | None = None
        self._flush: asyncio.Event | None = None
        self._stop: asyncio.Event | None = None
        self._until: float | None = None
        self._delivery: Delivery | None = None
        self._sender: Sender | None = None
        self._sockets: list[Any] = []
        self._cache: Cache | None = None
        self._unsaved = False
        self._ended = False

    @property
    def stream(self) -> Stream:
        """How changes arrive at this moment."""
        if self._ended:
            return "closed"
        return "connecting" if self._delivery is None else self._delivery.stream

    @property
    def pending(self) -> int:
        """Batches that wait to be sent or acknowledged."""
        return 0 if self._sender is None else len(self._sender.pending)

    def start(self) -> None:
        """Start the thread and return."""
        self._thread.start()

    def wake(self) -> None:
        """Flush soon; from any thread."""
        self._signal(self._flush)

    def stop(self, timeout: float) -> None:
        """Send what is left for at most `timeout` seconds, then end the thread; the rest is counted as dropped."""
        with self._lock:
            self._until = timeout
        self._signal(self._stop)
        self._thread.join(timeout + 0.5)
        if self._sender is not None:
            self._sender.count_unsent()

    def leave(self) -> None:
        """In a forked child: let go of the parent's connections, which must neither be used nor be kept open here."""
        loop = self._loop
        owned = [] if loop is None else [loop.selector.fileno(), *(held.fileno() for held in self._sockets)]
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in owned:
            if number >= 0:
                os.dup2(nothing, number, inheritable=False)  # closes it here, and leaves no number to be closed twice
        os.close(nothing)

    def _signal(self, event: asyncio.Event | None) -> None:
        loop = self._loop
        if loop is not None and event is not None:
            try:
                loop.call_soon_threadsafe(event.set)
            except RuntimeError:  # closed meanwhile
                return

    def _run(self) -> None:
        parts = self._parts
        try:
            if parts.cache_dir is not None:
                from rollout_client.lastknown import Cache

                self._cache = Cache(parts.cache_dir, f"{parts.url}\n{parts.identity[0]}", parts.reporter)
            self._read_disk()
            import asyncio

            from rollout_client.loop import Loop

            with asyncio.Runner(loop_factory=Loop) as runner:
                runner.run(self._main(runner.get_loop()))
        except Exception as error:
            parts.reporter.trouble("background", f"the client stopped: {explain(error)}")
        finally:
            self._loop = None
            self._ended = True
            parts.served.moved = None
            parts.served.abandon()

    def _read_disk(self) -> None:
        parts = self._parts
        if parts.served.current is None or parts.served.current.source == "bootstrap":
            kept = None if self._cache is None else self._cache.load()
            if kept is not None and parts.served.adopt(kept, "disk"):
                parts.changed()
                return
        if parts.served.current is None and parts.bootstrap is not None:
            ruleset = read_bootstrap(parts.bootstrap, parts.reporter)
            if ruleset is not None and parts.served.adopt(ruleset, "bootstrap"):
                parts.changed()

    async def _main(self, loop: Any) -> None:
        import asyncio

        import httpx

        from rollout_client.delivery import Delivery
        from rollout_client.sending import Sender, batch_of

        parts, options = self._parts, self._parts.options
        delivery = Delivery(parts.served, self._adopted, options, parts.reporter)
        sender = Sender(parts.folder, batch_of(*parts.identity), options, parts.reporter)
        flush, stop, moved = asyncio.Event(), asyncio.Event(), asyncio.Event()
        parts.served.moved = moved.set
        with self._lock:
            self._delivery, self._sender, self._flush, self._stop, self._loop = delivery, sender, flush, stop, loop
            if self._until is not None:
                stop.set()
        async with httpx.AsyncClient(
            base_url=parts.url,
            params={"environment": parts.identity[0]},
            headers={"Authorization": f"Bearer {parts.key}", "User-Agent": parts.identity[2]},
            timeout=httpx.Timeout(options.answer_timeout, connect=options.connect_timeout),
            event_hooks={"request": [self._trace]},
        ) as http:
            tasks = [
                asyncio.create_task(self._keep(name, work))
                for name, work in {
                    "polling": lambda: delivery.poll(http),
                    "streaming": lambda: delivery.follow(http),
                    "sending": lambda: sender.run(http, flush),
                    "leases": lambda: self._watch_leases(moved),
                    "keeping": self._keep_on_disk,
                }.items()
            ]
            await stop.wait()
            deadline = loop.time() + (self._until or 0.0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_END_TASKS)
            self._save()
            await sender.finish(http, deadline)
        delivery.stream = "closed"

    async def _keep(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run a task for ever: an error nobody foresaw is reported, and must not end delivery, leases or sending."""
        import asyncio

        while True:
            try:
                await work()
            except Exception as error:
                self._parts.reporter.trouble(f"task-{name}", f"{name} failed: {explain(error)}")
            await asyncio.sleep(1.0)

    async def _watch_leases(self, moved: asyncio.Event) -> None:
        import asyncio

        served, monotonic = self._parts.served, self._parts.options.monotonic
        while True:
            again = served.look()
            wait = _LOOK_AT_LEASES if again is None else again - monotonic() + 0.001
            moved.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(max(wait, 0.0), _LOOK_AT_LEASES)):
                    await moved.wait()

    async def _keep_on_disk(self) -> None:
        import asyncio

        while True:
            await asyncio.sleep(_KEEP_ON_DISK)
            self._save()

    def _adopted(self) -> None:
        self._unsaved = True
        self._parts.changed()

    def _save(self) -> None:
        current = self._parts.served.current
        if self._unsaved and self._cache is not None and current is not None:
            self._unsaved = False
            try:
                self._cache.save(current.compiled.ruleset)
            except Exception as error:  # the last batch is sent after this, and must be
                self._parts.reporter.trouble("cache", f"the ruleset cannot be kept: {explain(error)}")

    async def _trace(self, request: httpx.Request) -> None:
        """Learn of every socket that is opened, for `leave`."""

        async def opened(event: str, info: dict[str, Any]) -> None:
            if event == "connection.connect_tcp.complete":
                self._sockets = [held for held in self._sockets if held.fileno() >= 0]
                self._sockets.append(info["return_value"].get_extra_info("socket"))

        request.extensions["trace"] = opened
