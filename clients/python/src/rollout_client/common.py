"""What the two clients share: everything but waiting. Answers are given and outcomes counted without it."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import rollout_client
from rollout_client import native
from rollout_client.alerting import Alerts
from rollout_client.background import Background, Parts
from rollout_client.breaker import BreakerOptions, Breakers
from rollout_client.evaluation.answer import Evaluation
from rollout_client.evaluation.context import NOBODY, Context
from rollout_client.evaluation.receipt import Receipt, decode_receipt
from rollout_client.fold import Folder
from rollout_client.killing import killed_here
from rollout_client.options import Options
from rollout_client.report import Reporter, Source, Status, Stream
from rollout_client.served import Served

if TYPE_CHECKING:
    from rollout_client.attempt import Attempt
    from rollout_client.bootstrap import Bootstrap
    from rollout_client.toolkit import Toolkit


class Common(ABC):
    """Memory, evidence and breakers of one client. `Client` and `AsyncClient` say how to wait."""

    _background: Background

    def __init__(
        self,
        url: str,
        key: str,
        *,
        environment: str,
        cache_dir: str | os.PathLike[str] | None = None,
        bootstrap: Bootstrap | None = None,
        options: Options | None = None,
    ) -> None:
        self._url, self._key, self._environment = url, key.strip(), environment
        self._options = Options() if options is None else options
        self._cache_dir = cache_dir
        self._bootstrap = None if isinstance(bootstrap, Mapping) else bootstrap
        self._clock = self._options.clock
        self._reporter = Reporter()
        self._served = Served(environment, killed_here(), self._options.monotonic, self._reporter)
        self._state = "new"
        self._asleep = False
        self._minute = (0.0, 0.0, 0)
        self._reset()
        if isinstance(bootstrap, Mapping):
            from rollout_client.bootstrap import read_bootstrap

            ruleset = read_bootstrap(bootstrap, self._reporter)
            if ruleset is not None and self._served.adopt(ruleset, "bootstrap"):
                self._changed()
        self._look_after()

    def evaluate(self, flag: str, context: Context | None, default: Any = None) -> Evaluation:
        """Answer a flag from memory: never raises, never waits.

        `default` is the value when there is no ruleset yet (error PROVIDER_NOT_READY) or no such flag
        (FLAG_NOT_FOUND). The value of a variant is shared between answers and must not be mutated.
        """
        try:
            if self._asleep:
                self._awake()
            serving = self._served.current
            if serving is None:
                return Evaluation(default, None, "ERROR", "PROVIDER_NOT_READY", 0, flag)
            compiled, lapsed = serving.compiled, serving.lapsed
            asked = NOBODY if context is None else context
            slot = 0
            if compiled.attempts:  # else nothing is evidence, and no minute is asked for
                begins, ends, slot = self._minute
                if not begins <= self._clock() < ends:
                    slot = self._next_minute()
            try:  # `evaluate`, without its call
                answer = compiled.answers[flag](asked, compiled, lapsed, slot)
            except Exception:
                answer = compiled.answer_anew(flag, asked, lapsed, slot, default)
            if answer.attempt is not None:
                noted = self._noted
                noted.append(answer)
                if len(noted) >= self._together:
                    self._folder.crowd()
            elif flag in self._split:
                self._folder.end(flag, asked)
            return answer
        except Exception as error:
            self._reporter.trouble("evaluate", f"an evaluation failed: {type(error).__name__}")
            return Evaluation(default, None, "ERROR", "GENERAL", 0, flag)

    def observe(
        self, metric: str, value: Any, context: Context | None = None, *, receipt: Receipt | str | None = None
    ) -> None:
        """Record what followed an exposure: the receipt's, else the latest one of the unit in this process.

        Without either it is dropped and counted in `status().dropped`; so is a value that the metric cannot take.
        """
        try:
            if self._asleep:
                self._awake()
            given = decode_receipt(receipt)
            unreadable = receipt is not None and given is None
            known = None if unreadable or not isinstance(context, Context) else context
            self._folder.observe(metric, value, known, given, int(self._clock() // 60))
        except Exception as error:
            self._reporter.trouble("observe", f"an observation failed: {type(error).__name__}")

    def attempt(self, flag: str, context: Context | None) -> Attempt:
        """Answer a flag for one attempt of the AI call that uses it: `with client.attempt(flag, context) as a: ...`."""
        from rollout_client.attempt import Attempt

        evaluation, kit = self.evaluate(flag, context), self._kit
        return Attempt(evaluation, kit, kit.breaker(evaluation.flag, evaluation.variant))

    def status(self) -> Status:
        """Say what is served, how it arrives, and what was lost."""
        if self._state == "closed":
            self._folder.close()  # what others evaluated while it closed
        serving, vouched = self._served.current, self._served.vouched
        source: Source = "none" if serving is None else serving.source
        stream: Stream = (
            "off" if self._state == "new" else "closed" if self._state == "closed" else self._background.stream
        )
        return Status(
            ready=self._ready.is_set(),
            revision=None if serving is None else serving.compiled.revision,
            source=source,
            stream=stream,
            lapsed=bool(serving and serving.lapsed - {None}),
            vouched_age=None if vouched is None else self._options.monotonic() - vouched,
            pending=self._background.pending,
            dropped=dict(self._folder.dropped),
            last_error=self._reporter.last_error,
            breakers=dict(self._breakers.open()),
            alerts=self._alerts.said,
        )

    @abstractmethod
    def _look_after(self) -> None:
        """Have forks, and the end of the process, known to this client for as long as it lives."""

    @abstractmethod
    def _made(self, parts: Parts) -> Background:
        """Return what fetches and sends."""

    @abstractmethod
    def _awake(self) -> None:
        """Start again after a fork, at the first use."""

    @property
    def _kit(self) -> Toolkit:
        """What attempts share, made for each of them."""
        from rollout_client.toolkit import Toolkit  # as `Attempt`, for those who have attempts

        return Toolkit(self._options, self._reporter, self._folder, self._breakers, self._alerts)

    def _next_minute(self) -> int:
        slot = int(self._clock() // 60)
        self._minute = (slot * 60.0, slot * 60.0 + 60.0, slot)
        return slot

    def _changed(self) -> None:
        serving = self._served.current
        if serving is not None:
            self._folder.follow(serving.compiled)
            if serving.source == "service":
                self._arrive()

    def _arrive(self) -> None:
        self._ready.set()

    def _reset(self) -> None:
        """Make everything that belongs to one process: locks, counters, the thread, and the name in its batches."""
        self._process = os.getpid()
        self._starting = native.lock()
        self._served.moved = None
        self._ready = threading.Event()
        self._folder = self._folded()
        self._noted, self._together, self._split = self._folder.noted, self._folder.together, self._folder.units
        self._alerts = Alerts(self._options, self._reporter, self._folder.drop, self._warn)
        self._breakers = Breakers(self._options.breaker or BreakerOptions(), self._options.monotonic)
        process, name = f"p_{os.urandom(4).hex()}", f"python/{rollout_client.__version__}"
        self._background = self._made(
            Parts(
                url=self._url,
                key=self._key,
                identity=(self._environment, process, name),
                cache_dir=self._cache_dir,
                bootstrap=self._bootstrap,
                options=self._options,
                reporter=self._reporter,
                served=self._served,
                folder=self._folder,
                changed=self._changed,
                alerts=self._alerts,
            )
        )

    def _folded(self) -> Folder:
        """Return what counts exposures and outcomes."""
        return Folder(self._options, self._wake)

    def _wake(self) -> None:
        self._background.wake()

    def _warn(self) -> None:
        self._background.warn()
