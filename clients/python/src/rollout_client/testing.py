"""Clients for the tests of an application: in memory, without a thread and a service, and they remember what they see.

```python
import pytest
from rollout_client import Context
from rollout_client.testing import InMemoryClient, in_memory_client

flags = pytest.fixture(in_memory_client)  # in conftest.py; nothing is registered by itself


def test_an_outage_of_the_new_model_is_not_seen(flags: InMemoryClient) -> None:
    flags.set("support-answer", "v7", {"model": "small"})
    flags.set("support-answer", "v8", {"model": "large"}, baseline="v7")
    assert answer_question(flags, "user-1") == "from the small model"
    assert [(each.flag, each.variant) for each in flags.exposures] == [("support-answer", "v8")]
    assert flags.observed("fallback_rate") == [True]
```
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from rollout_client.aclient import AsyncClient
from rollout_client.background import Background, Parts
from rollout_client.client import Client
from rollout_client.common import Common
from rollout_client.evaluation.answer import Evaluation
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.evidence import Alert
from rollout_client.evaluation.receipt import Receipt
from rollout_client.evaluation.ruleset import BUCKETS, RolloutRule, Ruleset, RulesetFlag
from rollout_client.fold import Folder
from rollout_client.options import Options
from rollout_client.report import Status

__all__ = ["Exposed", "InMemoryAsyncClient", "InMemoryClient", "Observed", "in_memory_client"]

_SAME: Any = object()


class Exposed(msgspec.Struct, frozen=True):
    """One evaluation, whether it counts as evidence or not: `evaluation.attempt` says so."""

    flag: str
    variant: str | None
    context: Context | None
    evaluation: Evaluation


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """One value of one metric: from `observe`, with its context or receipt, or from an attempt, with its evaluation."""

    metric: str
    value: Any
    context: Context | None = None
    receipt: Receipt | None = None
    evaluation: Evaluation | None = None


class _Memory(Common):
    """What both clients of this module add: flags that a test sets, and a record of what was done.

    Attributes:
        exposures: every evaluation, also those of `run` and `attempt`, in order.
        observations: every value of a metric that an attempt or `observe` recorded, in order. Attempts record failures
            and times whether or not a rollout asks for them.
        alerts: every alert.
    """

    exposures: list[Exposed]
    observations: list[Observed]
    alerts: list[Alert]

    def __init__(
        self,
        ruleset: Mapping[str, Any] | None = None,
        *,
        environment: str = "test",
        options: Options | None = None,
    ) -> None:
        super().__init__("", "", environment=environment, options=_listening(self, options))
        self._begin(ruleset)

    def set(
        self,
        flag: str,
        variant: str,
        value: Any = _SAME,
        *,
        baseline: str | None = None,
        percentage: float = 100.0,
        units: Iterable[str] | None = None,
    ) -> None:
        """Answer a flag with a variant from now on; its former variants stay, for `baseline`.

        Args:
            flag: its key.
            variant: the one to answer with.
            value: of the variant; without one it keeps the value it had, and a new variant has its name as value.
            baseline: makes a rollout of it: the variant is the candidate, and this one, which was set before, is what
                `run` goes back to. Answers are evidence then, and have a receipt.
            percentage: of the units that get the candidate; the others get the baseline.
            units: who gets the variant, in place of everybody.

        Raises:
            ValueError: the baseline was never set, or the percentage is none.
        """
        former = self._ruleset.flags.get(flag)
        variants = dict(former.variants) if former is not None else {}
        if value is not _SAME or variant not in variants:
            variants[variant] = variant if value is _SAME else value
        if baseline is not None and baseline not in variants:
            raise ValueError(f"set the baseline first: {flag} has no variant {baseline}")
        if not 0 <= percentage <= 100:
            raise ValueError(f"a percentage is between 0 and 100, not {percentage}")
        if units is not None:
            now = former or RulesetFlag(variants=variants, default_variant=variant, salt=flag)
            overrides = now.overrides | dict.fromkeys(units, variant)
            made = msgspec.structs.replace(now, variants=variants, overrides=overrides)
        elif baseline is None:
            made = RulesetFlag(variants=variants, default_variant=variant, salt=flag)
        else:
            rule = RolloutRule(
                rollout=f"ro_{flag}",
                attempt=f"at_{flag}",
                baseline=baseline,
                candidate=variant,
                threshold=round(percentage * BUCKETS / 100),
            )
            made = RulesetFlag(variants=variants, default_variant=baseline, salt=flag, rules=(rule,))
        self._serve(self._ruleset.flags | {flag: made})

    def remove(self, flag: str) -> None:
        """Forget a flag: it answers with the caller's default and FLAG_NOT_FOUND."""
        self._serve({key: kept for key, kept in self._ruleset.flags.items() if key != flag})

    @contextmanager
    def override(self, flag: str, variant: str, value: Any = _SAME) -> Iterator[None]:
        """Answer a flag with a variant while the block runs, whatever it answers before and after."""
        former = self._ruleset.flags.get(flag)
        self.set(flag, variant, value)
        try:
            yield
        finally:
            if former is None:
                self.remove(flag)
            else:
                self._serve(self._ruleset.flags | {flag: former})

    def observed(self, metric: str) -> list[Any]:
        """Return the values of one metric, in order."""
        return [each.value for each in self.observations if each.metric == metric]

    def forget(self) -> None:
        """Empty the record; flags stay as they are."""
        self.exposures, self.observations, self.alerts = [], [], []

    def evaluate(self, flag: str, context: Context | None, default: Any = None) -> Evaluation:
        """Answer as `Client.evaluate` does, and remember it."""
        answer = super().evaluate(flag, context, default)
        self.exposures.append(Exposed(flag, answer.variant, context, answer))
        return answer

    def observe(
        self, metric: str, value: Any, context: Context | None = None, *, receipt: Receipt | str | None = None
    ) -> None:
        """Remember what was observed."""
        known = Context(receipt=receipt).receipt
        self.observations.append(Observed(metric=metric, value=value, context=context, receipt=known))

    def status(self) -> Status:
        """Say what is served; nothing is ever pending."""
        said = super().status()
        return said if self._state == "closed" else msgspec.structs.replace(said, stream="open")

    @property
    def _ruleset(self) -> Ruleset:
        serving = self._served.current
        return Ruleset(environment=self._environment, revision=0) if serving is None else serving.compiled.ruleset

    def _serve(self, flags: Mapping[str, RulesetFlag]) -> None:
        former = self._ruleset
        ruleset = msgspec.structs.replace(former, revision=former.revision + 1, flags=dict(flags))
        if not self._served.adopt(ruleset, "service"):
            raise ValueError(self._reporter.last_error)
        self._changed()

    def _begin(self, ruleset: Mapping[str, Any] | None) -> None:
        self.forget()
        self._state = "started"
        self._served.vouch(0)
        found = Ruleset(environment=self._environment, revision=1)
        if ruleset is not None:
            found = msgspec.convert({"environment": self._environment, "revision": 1} | dict(ruleset), Ruleset)
            found = msgspec.structs.replace(found, environment=self._environment)
        if not self._served.adopt(found, "service"):
            raise ValueError(self._reporter.last_error)
        self._changed()

    def _folded(self) -> Folder:
        return _Record(self._options, self._observed_by_attempt)

    def _observed_by_attempt(self, evaluation: Evaluation, outcomes: Mapping[str, Any]) -> None:
        self.observations += [
            Observed(metric=name, value=value, evaluation=evaluation) for name, value in outcomes.items()
        ]


class InMemoryClient(_Memory, Client):
    """A `Client` without a service: `client.set("support-answer", "v8", {"model": "large"})`.

    Args:
        ruleset: a ruleset document to begin with; its environment may be missing.
        environment: its name.
        options: limits, breakers, prices, classifiers. Nothing is ever sent.
    """

    def start(self) -> None:
        """Nothing: it answers already."""

    def _made(self, parts: Parts) -> Background:
        super()._made(parts)
        return _Nothing(parts)


class InMemoryAsyncClient(_Memory, AsyncClient):
    """An `AsyncClient` without a service; see `InMemoryClient`.

    Args:
        ruleset: a ruleset document to begin with; its environment may be missing.
        environment: its name.
        options: limits, breakers, prices, classifiers. Nothing is ever sent.
    """

    async def start(self) -> None:
        """Nothing: it answers already."""

    async def wait_ready(self, timeout: float) -> bool:  # noqa: ASYNC109
        """Return True: it answers already."""
        return True

    async def close(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109
        """Stop as `AsyncClient.close` does; there is nothing to send."""
        self._state = "closed"
        self._served.abandon()
        self._folder.close()


def in_memory_client() -> Iterator[InMemoryClient]:
    """Yield a client and close it afterwards: `flags = pytest.fixture(in_memory_client)` makes a fixture of it."""
    with InMemoryClient() as client:
        yield client


def _listening(client: _Memory, options: Options | None) -> Options:
    given = Options() if options is None else options
    told = given.on_alert

    def remember(alert: Alert) -> None:
        client.alerts.append(alert)
        if told is not None:
            told(alert)

    return msgspec.structs.replace(given, on_alert=remember)


class _Record(Folder):
    """Keeps outcomes as they are, in place of counting them."""

    def __init__(self, options: Options, finished: Callable[[Evaluation, Mapping[str, Any]], None]) -> None:
        super().__init__(options, lambda: None)
        self.noted = deque(maxlen=0)  # the client remembers evaluations
        self._finished = finished

    def end(self, flag: str, context: Context) -> None:
        """Nothing: no outcome is attributed."""

    def start(self, evaluation: Evaluation) -> None:
        """Nothing: an attempt that began is seen in what it ends with."""

    def finish(self, evaluation: Evaluation, outcomes: Mapping[str, Any], automatic: Container[str]) -> None:
        """Remember the outcomes of one attempt."""
        self._finished(evaluation, outcomes)


class _Nothing(Background):
    """Fetches and sends nothing."""

    def start(self, forked: bool = False) -> None:
        return

    def stop(self, timeout: float) -> None:
        return
