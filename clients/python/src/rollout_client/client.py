"""The client: what an application imports. It never raises into the application and never blocks it."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rollout_client.background import Background, Parts
from rollout_client.common import Common
from rollout_client.evaluation.context import Context
from rollout_client.killing import killed_here

if TYPE_CHECKING:
    from rollout_client.calls import Calls

__all__ = ["Client"]


class Client(Common):
    """Answers flags from memory and sends back what their answers led to.

    Args:
        url: the service.
        key: a key with the scopes `sdk:read` and `sdk:evidence` for the environment.
        environment: its name.
        cache_dir: where the last ruleset is kept for a start without the service; None keeps none.
        bootstrap: a ruleset document, or a file with one, for a start without service and cache.
        options: intervals, timeouts and limits.

    Answers come from memory, then the disk cache, then the bootstrap, then the caller's default. Leased rules need
    a service that vouches for them: from disk and bootstrap they serve the baseline with reason STALE.
    """

    def start(self) -> None:
        """Begin to fetch rulesets and to send evidence, in the background; returns at once, and may be repeated."""
        from rollout_client import processes

        with self._starting:
            if self._state == "new":
                self._state = "started"
                self._served.kill(killed_here())
                processes.arrange_end(self)
                self._asleep = not processes.may_start() or not self._launched()

    def wait_ready(self, timeout: float) -> bool:
        """Wait for the service's own ruleset, `timeout` seconds at most; False when it has not come.

        Nobody has to wait: answers come from the cache, the bootstrap and the defaults meanwhile.
        """
        if self._asleep:
            self._awake()
        self._background.hurry()
        return self._ready.wait(timeout)

    def run(  # noqa: PLR0913  (what a call may need is asked for by name)
        self,
        flag: str,
        context: Context | None,
        call: Callable[[Any], Any],
        fallback: Any = None,
        timeout: float | None = None,
        min_confidence: float | None = None,
        *,
        check: Callable[[Any], Any] | None = None,
        hedge_after: float | None = None,
        breaker: bool = True,
    ) -> Any:
        """Call with the value of the variant, and return an answer whatever happens.

        The assigned variant is tried first, then the baseline, then the fallback: on an exception, after `timeout`,
        when the circuit breaker of the variant is open, when the answer fails `check` or admits to be none (see
        `Outcome`), or when the call returns an `Outcome` with less than `min_confidence`. Failures and fallbacks count
        against the assigned arm. Only what is no Exception (KeyboardInterrupt) passes through.

        Args:
            flag: its key.
            context: who is asking.
            call: takes the variant's value (None before any ruleset) and returns an answer or an `Outcome`.
            fallback: the last answer, or a function of no arguments that gives it.
            timeout: seconds that each call may take; a call that takes longer goes on in a thread of its own, unheard.
                While 64 of them hang, further calls fail at once. What is no number is reported, and is no timeout.
            min_confidence: the least confidence that is good enough.
            check: takes the answer; if it raises or returns something false (but None), the answer is `schema_invalid`.
            hedge_after: seconds after which the baseline is called too, while the candidate's call goes on; the first
                good answer is taken. One of the baseline is a fallback, and no failure of a call that has not failed.
            breaker: whether circuit breakers are asked and told.
        """
        from rollout_client.attempt import Attempt  # mostly imported already, by the thread of the client
        from rollout_client.calls import go
        from rollout_client.walk import Course, begin

        kit = self._kit
        attempt = Attempt(self.evaluate(flag, context), kit)
        course = Course(call, fallback, timeout, min_confidence, check, hedge_after, breaker)
        with attempt:
            walk = begin(course, attempt.evaluation, kit, self._served.current)
            try:
                return go(walk, self._threads())
            finally:
                attempt.settle(walk)

    def close(self, timeout: float = 5.0) -> None:
        """Send what is left for at most `timeout` seconds and stop; answers go on, leased rules serve the baseline."""
        with self._starting:
            running, self._state = self._state == "started" and not self._asleep, "closed"
            self._asleep = False
        if running:
            self._background.stop(timeout)
        self._served.abandon()
        self._folder.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _look_after(self) -> None:
        from rollout_client import processes  # it takes part in every fork and in the end, from the first client on

        processes.watch(self)

    def _made(self, parts: Parts) -> Background:
        self._calls: dict[type[Calls], Calls] = {}  # empty, or with the one that whoever was first has made
        return Background(parts)

    def _forked(self) -> None:
        """In a child: leave the parent's evidence and connections to the parent, and go on with a thread of its own."""
        if self._process == os.getpid():  # a server that forks, and ends up with this process alone
            self._awake()
            return
        self._background.leave()
        self._reset()
        self._changed()
        self._asleep = self._state == "started" and not self._launched(forked=True)
        if self._state == "closed":
            self._folder.close()

    def _threads(self) -> Calls:
        """Return the calls that run in threads; no lock, because a signal handler may have come in between."""
        from rollout_client.calls import Calls

        return self._calls.get(Calls) or self._calls.setdefault(Calls, Calls())

    def _launched(self, forked: bool = False) -> bool:
        """Start the thread; False where none can be started now, and the next use tries again."""
        try:
            self._background.start(forked)
        except RuntimeError as error:
            self._reporter.trouble("start", f"the client cannot start its thread: {error}")
            return False
        return True

    def _awake(self) -> None:
        with self._starting:
            if self._asleep:
                self._served.look()  # leases may have lapsed while nobody looked
                self._asleep = not self._launched()
