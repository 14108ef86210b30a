"""What attempts and walks of one client share: how failures are told, what models cost, breakers and alerts."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from rollout_client.alerting import Alerts
from rollout_client.breaker import TRIPPING, Breaker, Breakers
from rollout_client.evaluation.answer import Evaluation
from rollout_client.evaluation.evidence import Alert
from rollout_client.evaluation.ruleset import Arm
from rollout_client.failure import FailureKind, is_kind
from rollout_client.fold import Folder
from rollout_client.options import Options
from rollout_client.report import Reporter
from rollout_client.usage import Usage


class Toolkit(NamedTuple):
    """The parts, for one process. No method raises, whatever the functions of the application do."""

    options: Options
    reporter: Reporter
    folder: Folder
    breakers: Breakers
    alerts: Alerts

    def kind_of(self, error: BaseException) -> FailureKind:
        """Return the kind of failure an error is."""
        try:
            kind = self.options.classify(error)
        except Exception as broken:
            self.reporter.failed_call("classify", broken)
            return "other"
        return kind if is_kind(kind) else "other"

    def kind_in(self, response: Any) -> FailureKind | None:
        """Return the kind of failure a response admits, None when it is whole."""
        try:
            kind = self.options.classify_response(response)
        except Exception as broken:
            self.reporter.failed_call("classify_response", broken)
            return None
        return kind if kind is None or is_kind(kind) else "other"

    def measure(self, usages: list[Usage]) -> dict[str, Any]:
        """Return tokens and cost of all calls of one attempt; no cost when the price of one of them is not known."""
        if not usages:
            return {}
        measured: dict[str, Any] = {
            "input_tokens": sum(usage.input_tokens for usage in usages),
            "output_tokens": sum(usage.output_tokens for usage in usages),
        }
        prices = self.options.prices
        if prices is not None:
            costs = [self._cost(usage) for usage in usages]
            known = [cost for cost in costs if cost is not None]
            if len(known) == len(costs):
                measured["cost_usd"] = sum(known)
        return measured

    def breaker(self, flag: str, variant: str | None) -> Breaker | None:
        """Return the breaker of a variant, None where breakers are off or there is no variant (no ruleset yet)."""
        if variant is None or self.options.breaker is None:
            return None
        return self.breakers.of(flag, variant)

    def feed(self, breaker: Breaker | None, kind: FailureKind | None, told: Evaluation, step: Step) -> None:
        """Tell a breaker how a call went (None: well), and everybody else when that opened it."""
        if breaker is None or kind == "user_abandon":
            return
        if kind is None or kind not in TRIPPING:
            breaker.succeeded(self.breakers.now())
        elif breaker.failed(kind, self.breakers.now()):
            self.alerts.say(
                Alert(
                    flag=told.flag,
                    kind="breaker_open",
                    at=round(self.options.clock(), 3),
                    variant=step.variant,
                    rollout=told.rollout,
                    attempt=told.attempt,
                    arm=step.arm,
                    failure=kind,
                )
            )

    def _cost(self, usage: Usage) -> float | None:
        try:
            cost = None if self.options.prices is None else self.options.prices.cost(usage)
        except Exception as broken:
            self.reporter.failed_call("prices", broken)
            return None
        if cost is None:
            self.folder.drop("unpriced")
            self.reporter.trouble(
                f"price {usage.model}", f"no price is known for model {usage.model}: its cost is not recorded"
            )
        return cost


class Step(msgspec.Struct, frozen=True, eq=False):
    """One variant that may be tried; itself alone, whatever its value is."""

    variant: str | None
    value: Any
    arm: Arm | None = None
