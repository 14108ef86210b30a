"""The client of an asyncio application: the same answers and the same evidence, and nothing that waits but `await`."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from rollout_client.acalls import go
from rollout_client.attempt import Attempt
from rollout_client.background import Parts
from rollout_client.common import Common
from rollout_client.evaluation.context import Context
from rollout_client.killing import killed_here
from rollout_client.onloop import OnLoop
from rollout_client.walk import Course, begin


class AsyncClient(Common):
    """`Client` for asyncio: `await` what waits (`start`, `wait_ready`, `run`, `close`), call the rest.

    It runs as tasks of the loop on which it is started and has no thread of its own. A loop that ends cancels it; it
    sends what is left then, for `Options.exit_timeout` at most. After a fork, start it again in the child.

    Args:
        url: the service.
        key: a key with the scopes `sdk:read` and `sdk:evidence` for the environment.
        environment: its name.
        cache_dir: where the last ruleset is kept for a start without the service; None keeps none.
        bootstrap: a ruleset document, or a file with one, for a start without service and cache.
        options: intervals, timeouts and limits.
    """

    _background: OnLoop

    async def start(self) -> None:
        """Begin to fetch rulesets and to send evidence on the running loop; returns at once, and may be repeated."""
        if self._state == "new":
            self._state = "started"
            self._served.kill(killed_here())
            self._background.start()

    async def wait_ready(self, timeout: float) -> bool:  # noqa: ASYNC109  (as `Client` has it)
        """Wait for the service's own ruleset, `timeout` seconds at most; False when it has not come.

        Nobody has to wait: answers come from the cache, the bootstrap and the defaults meanwhile.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._arrived.wait()
        except TimeoutError:
            return self._ready.is_set()
        return True

    async def run(  # noqa: PLR0913  (what a call may need is asked for by name)
        self,
        flag: str,
        context: Context | None,
        call: Callable[[Any], Awaitable[Any]],
        fallback: Any = None,
        timeout: float | None = None,  # noqa: ASYNC109
        min_confidence: float | None = None,
        *,
        check: Callable[[Any], Any] | None = None,
        hedge_after: float | None = None,
        breaker: bool = True,
    ) -> Any:
        """Call with the value of the variant, and return an answer whatever happens.

        As `Client.run`, with these differences: `call` and `fallback` may be coroutine functions; a call that takes
        longer than `timeout`, or lost to a hedged one, is cancelled; and when whoever awaits this is cancelled, so are
        the calls, and the attempt is a `user_abandon`.

        Args:
            flag: its key.
            context: who is asking.
            call: takes the variant's value (None before any ruleset) and gives an answer or an `Outcome`.
            fallback: the last answer, or a function of no arguments that gives it.
            timeout: seconds that each call may take. What is no number is reported, and is no timeout.
            min_confidence: the least confidence that is good enough.
            check: takes the answer; if it raises or returns something false (but None), the answer is `schema_invalid`.
            hedge_after: seconds after which the baseline is called too, while the candidate's call goes on; the first
                good answer is taken. One of the baseline is a fallback, and no failure of a call that has not failed.
            breaker: whether circuit breakers are asked and told.
        """
        kit = self._kit
        attempt = Attempt(self.evaluate(flag, context), kit)
        course = Course(call, fallback, timeout, min_confidence, check, hedge_after, breaker)
        with attempt:
            walk = begin(course, attempt.evaluation, kit, self._served.current)
            try:
                return await go(walk)
            finally:
                attempt.settle(walk)

    async def close(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109
        """Send what is left for at most `timeout` seconds and stop; answers go on, leased rules serve the baseline."""
        running, self._state = self._state == "started", "closed"
        if running:
            await self._background.finish(timeout)
        self._served.abandon()
        self._folder.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _look_after(self) -> None:
        _clients.add(self)

    def _made(self, parts: Parts) -> OnLoop:
        self._arrived = asyncio.Event()
        return OnLoop(parts)

    def _arrive(self) -> None:
        super()._arrive()
        self._background.tell(self._arrived)

    def _awake(self) -> None:
        """Nothing: a client of asyncio is started again by whoever started it."""

    def _forked(self) -> None:
        """In a child: leave the parent's evidence and connections to the parent, and wait to be started again."""
        self._background.leave()
        self._reset()
        self._changed()
        self._ready.clear()
        self._served.abandon()
        if self._state == "started":
            self._state = "new"


_clients: weakref.WeakSet[AsyncClient] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
