"""The client: what an application imports. It never raises into the application and never blocks it."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import rollout_client
from rollout_client.attempt import Attempt
from rollout_client.background import Background, Parts
from rollout_client.bootstrap import Bootstrap, read_bootstrap
from rollout_client.evaluation.answer import Evaluation
from rollout_client.evaluation.context import NOBODY, Context
from rollout_client.evaluation.evaluate import evaluate
from rollout_client.evaluation.receipt import Receipt, decode_receipt
from rollout_client.fold import Folder
from rollout_client.options import Options
from rollout_client.report import Reporter, Source, Status, Stream
from rollout_client.served import Served
from rollout_client.walk import Calls, Course, bearable, walk

KILL_VARIABLE = "RAMPLINE_KILL"
"""Flags that are killed in this process, separated by commas, whatever the service says."""


class Client:
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
        self._served = Served(environment, _killed_here(), self._options.monotonic, self._reporter)
        self._state = "new"
        self._asleep = False
        self._reset()
        if isinstance(bootstrap, Mapping):
            ruleset = read_bootstrap(bootstrap, self._reporter)
            if ruleset is not None and self._served.adopt(ruleset, "bootstrap"):
                self._changed()
        _clients.add(self)

    def start(self) -> None:
        """Begin to fetch rulesets and to send evidence, in the background; returns at once, and may be repeated."""
        with self._starting:
            if self._state == "new":
                self._state = "started"
                self._served.kill(_killed_here())
                self._background.start()

    def wait_ready(self, timeout: float) -> bool:
        """Wait for the service's own ruleset, `timeout` seconds at most; False when it has not come.

        Nobody has to wait: answers come from the cache, the bootstrap and the defaults meanwhile.
        """
        if self._asleep:
            self._awake()
        return self._ready.wait(timeout)

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
            asked = NOBODY if context is None else context
            answer = evaluate(serving.compiled, flag, asked, serving.lapsed, int(self._clock() // 60), default)
            if answer.attempt is not None:
                self._folder.expose(answer)
            else:
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
        return Attempt(self.evaluate(flag, context), self._folder)

    def run(
        self,
        flag: str,
        context: Context | None,
        call: Callable[[Any], Any],
        fallback: Any = None,
        timeout: float | None = None,
        min_confidence: float | None = None,
    ) -> Any:
        """Call with the value of the variant, and return an answer whatever happens.

        The assigned variant is tried first, then the baseline, then the fallback: on an exception, after `timeout`,
        or when the call returns an `Outcome` with less than `min_confidence`. Failures and fallbacks count against
        the assigned arm. Only what is no Exception (KeyboardInterrupt) passes through.

        Args:
            flag: its key.
            context: who is asking.
            call: takes the variant's value (None before any ruleset) and returns an answer or an `Outcome`.
            fallback: the last answer, or a function of no arguments that gives it.
            timeout: seconds that each call may take; a call that takes longer goes on in a thread of its own, unheard.
                While 64 of them hang, further calls fail at once. What is no number is reported, and is no timeout.
            min_confidence: the least confidence that is good enough.
        """
        try:
            seconds = bearable(timeout)
        except ValueError as error:
            self._reporter.trouble("timeout", f"run was called without a timeout: {error}")
            seconds = None
        attempt = self.attempt(flag, context)
        with attempt:
            steps = self._steps(attempt.evaluation)
            told = self._reporter.failed_call
            walked = walk(Course(steps, call, fallback, seconds, min_confidence, told, self._calls))
            metrics = walked.outcome.readable_metrics()
            attempt.record(**metrics | {"error_rate": walked.failed, "fallback_rate": walked.fell_back})
        return walked.outcome.value

    def status(self) -> Status:
        """Say what is served, how it arrives, and what was lost."""
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
        )

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

    def _steps(self, evaluation: Evaluation) -> list[tuple[str | None, Any]]:
        steps = [(evaluation.variant, evaluation.value)]
        serving = self._served.current
        if serving is not None and evaluation.arm == "candidate":
            found = serving.compiled.flags.get(evaluation.flag)
            baseline = None if found is None else found.baseline(evaluation.rollout)
            if found is not None and baseline is not None and baseline != evaluation.variant:
                steps.append((baseline, found.flag.variants[baseline]))
        return steps

    def _changed(self) -> None:
        serving = self._served.current
        if serving is not None:
            self._folder.follow(serving.compiled)
            if serving.source == "service":
                self._ready.set()

    def _reset(self) -> None:
        """Make everything that belongs to one process: locks, counters, the thread, and the name in its batches."""
        self._starting = threading.Lock()
        self._served.moved = None
        self._ready = threading.Event()
        self._calls = Calls()
        self._folder = Folder(self._options, self._wake)
        process, name = f"p_{os.urandom(4).hex()}", f"python/{rollout_client.__version__}"
        self._background = Background(
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
            )
        )

    def _wake(self) -> None:
        self._background.wake()

    def _forked(self) -> None:
        """In a child: leave the parent's evidence and connections to the parent, and start again at the first use."""
        self._background.leave()
        self._reset()
        self._changed()
        self._asleep = self._state == "started"
        if self._state == "closed":
            self._folder.close()

    def _awake(self) -> None:
        with self._starting:
            if not self._asleep:
                return
            self._served.look()  # leases may have lapsed while this process slept, and nothing looked
            self._background.start()
            self._asleep = False


def _killed_here() -> frozenset[str]:
    names = (name.strip() for name in os.environ.get(KILL_VARIABLE, "").split(","))
    return frozenset(name for name in names if name)


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client._forked()


def _at_exit() -> None:
    for client in list(_clients):
        client.close(client._options.exit_timeout)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
