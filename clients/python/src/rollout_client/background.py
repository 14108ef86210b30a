"""The one thread of a client: delivery, leases, flushes and the disk, as tasks of one event loop.

asyncio and httpx are imported here, on that thread, because they cost more than everything else together.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from rollout_client import native
from rollout_client.alerting import Alerts
from rollout_client.fold import Folder
from rollout_client.killing import KillFile
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
    from rollout_client.spool import Spool

_LOOK_AT_LEASES = 1.0
_KEEP_ON_DISK = 1.0
_LOOK_AT_KILLS = 1.0
_END_TASKS = 1.0
_ASIDE = 0.005
"""Seconds that a new thread stands aside, so that the imports it begins with do not hold up the first answer."""
_AFTER_FORK = 0.1
"""The same in a forked child, which may only be about to close what it inherited, or to become another program."""
_BEFORE_GEVENT = 1.0
"""The same where gevent may be about to replace locks and modules, and among them those of an import half done."""
_SOON = ("rollout_client.attempt", "rollout_client.calls")
"""What the first `run` imports, on the thread of the application, when it is not there yet."""


class Parts(msgspec.Struct, frozen=True):
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
    alerts: Alerts


class Background:
    """Runs until it is stopped. What is not public happens on its own thread."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._thread = native.thread(self._run, "rollout-client")
        self._lock = native.lock()
        self._turn = native.lock()
        self._aside = _ASIDE
        self._called = False
        self._loop: Loop | None = None
        self._flush: asyncio.Event | None = None
        self._alarm: asyncio.Event | None = None
        self._stop: asyncio.Event | None = None
        self._until: float | None = None
        self._delivery: Delivery | None = None
        self._sender: Sender | None = None
        self._sockets: list[Any] = []
        self._cache: Cache | None = None
        self._kills = KillFile(parts.options.kill_file, parts.reporter)
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

    def start(self, forked: bool = False) -> None:
        """Start the thread and return.

        Raises:
            RuntimeError: this process may not start a thread now; try again later.
        """
        if forked:
            self._aside = _BEFORE_GEVENT if native.to_be_patched() else _AFTER_FORK
        self._turn.acquire()  # on behalf of the thread, which gives it up when it has nothing half done
        try:
            self._thread.start()
        except BaseException:
            self._turn.release()
            raise

    def hold_still(self, timeout: float) -> bool:
        """Keep the thread from going on until `go_on`; False when it did not come to rest in time."""
        return self._turn.acquire(timeout=timeout)

    def go_on(self) -> None:
        """Let the thread go on."""
        self._turn.release()

    def hurry(self) -> None:
        """Somebody waits for what the thread brings: it stands aside no longer."""
        self._called = True

    def tell(self, event: asyncio.Event) -> None:
        """Set an event of this loop; from any thread."""
        self._signal(event)

    def wake(self) -> None:
        """Flush soon; from any thread."""
        self._signal(self._flush)

    def warn(self) -> None:
        """Send alerts at once, and no evidence; from any thread."""
        self._signal(self._alarm)

    def stop(self, timeout: float) -> None:
        """Send what is left for at most `timeout` seconds, then end the thread; the rest is counted as dropped."""
        with self._lock:
            self._until = timeout
        self.hurry()
        self._signal(self._stop)
        self._thread.join(timeout + 0.5)
        if self._sender is not None:
            self._sender.count_unsent()

    def leave(self) -> None:
        """In a forked child: let go of the parent's connections, which must neither be used nor be kept open here."""
        loop = self._loop
        owned = [held.fileno() for held in self._sockets]
        if loop is not None and hasattr(loop.selector, "fileno"):  # gevent's own has none
            owned.append(loop.selector.fileno())
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in owned:
            if number >= 0:
                os.dup2(nothing, number, inheritable=False)  # closes it here, and leaves no number to be closed twice
        os.close(nothing)
        if self._sender is not None:
            self._sender.leave()

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
            self._stand_aside()
            if parts.cache_dir is not None:
                from rollout_client.lastknown import Cache

                self._cache = Cache(parts.cache_dir, f"{parts.url}\n{parts.identity[0]}", parts.reporter)
            self._read_disk()
            for name in _SOON:
                importlib.import_module(name)
            import asyncio

            from rollout_client.loop import Loop

            with asyncio.Runner(loop_factory=lambda: Loop(self._turn)) as runner:
                runner.run(self._main(runner.get_loop()))
        except Exception as error:
            parts.reporter.trouble("background", f"the client stopped: {explain(error)}")
        finally:
            self._loop = None
            self._ended = True
            parts.served.moved = None
            parts.served.abandon()
            self._turn.release()

    def _stand_aside(self) -> None:
        until = time.monotonic() + self._aside
        sleep = native.original("time", "sleep")
        while not self._called and time.monotonic() < until:
            self._turn.release()
            try:
                sleep(0.005)
            finally:
                self._turn.acquire()

    def _spool(self) -> Spool | None:
        options = self._parts.options
        if options.spool_dir is None:
            return None
        from rollout_client.spool import Spool

        return Spool(
            options.spool_dir,
            f"{self._parts.url}\n{self._parts.identity[0]}",
            options.spool_bytes,
            self._parts.reporter,
        )

    def _read_disk(self) -> None:
        parts = self._parts
        parts.served.kill(self._kills.killed())
        if parts.served.current is None or parts.served.current.source == "bootstrap":
            kept = None if self._cache is None else self._cache.load()
            if kept is not None and parts.served.adopt(kept, "disk"):
                parts.changed()
                return
        if parts.served.current is None and parts.bootstrap is not None:
            from rollout_client.bootstrap import read_bootstrap

            ruleset = read_bootstrap(parts.bootstrap, parts.reporter)
            if ruleset is not None and parts.served.adopt(ruleset, "bootstrap"):
                parts.changed()

    async def _main(self, loop: Any) -> None:
        import asyncio

        from rollout_client.delivery import Delivery
        from rollout_client.sending import Sender, batch_of

        parts, options = self._parts, self._parts.options
        delivery = Delivery(parts.served, self._adopted, options, parts.reporter, self._offload)
        sender = Sender(parts.folder, batch_of(*parts.identity), options, parts.reporter, self._spool(), self._offload)
        flush, alarm, stop, moved = (asyncio.Event() for _ in range(4))
        parts.served.moved = moved.set
        with self._lock:
            self._delivery, self._sender, self._loop = delivery, sender, loop
            self._flush, self._alarm, self._stop = flush, alarm, stop
            if self._until is not None:
                stop.set()
        async with await self._offload(self._connections) as http:
            works: dict[str, Callable[[], Awaitable[None]]] = {
                "polling": lambda: delivery.poll(http),
                "streaming": lambda: delivery.follow(http),
                "sending": lambda: sender.run(http, flush),
                "alerting": lambda: parts.alerts.run(http, alarm, batch_of(*parts.identity)),
                "leases": lambda: self._watch_leases(moved),
                "keeping": self._keep_on_disk,
            }
            if self._kills.path:
                works["killing"] = self._watch_kills
            tasks = [asyncio.create_task(self._keep(name, work)) for name, work in works.items()]
            await self._until_stopped(stop)
            deadline = loop.time() + (self._until or 0.0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_END_TASKS)
            await self._save()
            await parts.alerts.finish(http, deadline, batch_of(*parts.identity))
            await sender.finish(http, deadline)
            await self._offload(sender.keep)
        delivery.stream = "closed"

    def _connections(self) -> httpx.AsyncClient:
        import httpx

        options, (environment, _, name) = self._parts.options, self._parts.identity
        return httpx.AsyncClient(
            base_url=self._parts.url,
            params={"environment": environment},
            headers={"Authorization": f"Bearer {self._parts.key}", "User-Agent": name},
            timeout=httpx.Timeout(options.answer_timeout, connect=options.connect_timeout),
            event_hooks={"request": [self._trace]},
        )

    async def _until_stopped(self, stop: asyncio.Event) -> None:
        await stop.wait()

    async def _offload(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call what may take long. Nobody else waits for this loop, so it is done here."""
        return function(*arguments)

    async def _keep(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run a task for ever: an error nobody foresaw is reported, and must not end delivery, leases or sending."""
        import asyncio

        while True:
            try:
                await work()
            except Exception as error:
                self._parts.reporter.trouble(f"task-{name}", f"{name} failed: {explain(error)}")
            await asyncio.sleep(1.0)

    async def _watch_kills(self) -> None:
        import asyncio

        while True:
            killed = await self._offload(self._kills.killed)
            if killed != self._parts.served.killed:
                self._parts.served.kill(killed)
                self._parts.changed()
                self._parts.reporter.news("killed", f"killed in this process: {', '.join(sorted(killed)) or 'nothing'}")
            await asyncio.sleep(_LOOK_AT_KILLS)

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
            await self._save()

    def _adopted(self) -> None:
        self._unsaved = True
        self._parts.changed()

    async def _save(self) -> None:
        current = self._parts.served.current
        if self._unsaved and self._cache is not None and current is not None:
            self._unsaved = False
            try:
                await self._offload(self._cache.save, current.compiled.ruleset)
            except Exception as error:  # the last batch is sent after this, and must be
                self._parts.reporter.trouble("cache", f"the ruleset cannot be kept: {explain(error)}")

    async def _trace(self, request: httpx.Request) -> None:
        """Learn of every socket that is opened, for `leave`."""

        async def opened(event: str, info: dict[str, Any]) -> None:
            if event == "connection.connect_tcp.complete":
                self._sockets = [held for held in self._sockets if held.fileno() >= 0]
                self._sockets.append(info["return_value"].get_extra_info("socket"))

        request.extensions["trace"] = opened
