"""What an evaluation gives: a value, why, and what its outcome would count for."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from rollout_client.evaluation.bucketing import cell, pin_hash
from rollout_client.evaluation.receipt import Receipt, encode_receipt
from rollout_client.evaluation.ruleset import Arm

Reason = Literal["STATIC", "DEFAULT", "TARGETING_MATCH", "SPLIT", "DISABLED", "STALE", "ERROR"]
"""OpenFeature's resolution reasons, those that occur here."""
ErrorCode = Literal["PROVIDER_NOT_READY", "FLAG_NOT_FOUND", "TARGETING_KEY_MISSING", "INVALID_CONTEXT", "GENERAL"]
"""OpenFeature's error codes, those that occur here."""


class Evaluation(msgspec.Struct, frozen=True, gc=False):
    """One answer. `value` is the variant's value as stored in the ruleset: it is shared, so it must not be mutated.

    `attempt` is set only when the answer is evidence: given by the live randomised rule of a running
    attempt, or pinned to it. `rollout` and `arm` may be there without it (a lapsed lease, a cohort let in
    earlier, a pin to an older attempt).

    What follows is there with `attempt`: who was exposed where and when, enough to count it and to write its receipt
    without hashing before someone asks. `unit` stays in the process, `slot` is the minute (unix seconds // 60), `pin`
    the text of the conversation or its hash. `pinned` is the receipt of an older attempt that pinned the answer.
    """

    value: Any
    variant: str | None
    reason: Reason
    error: ErrorCode | None
    revision: int
    flag: str
    rollout: str | None = None
    attempt: str | None = None
    arm: Arm | None = None
    environment: str = ""
    unit: str = ""
    slot: int = 0
    pin: str | int | None = None
    pinned: Receipt | None = None

    @property
    def receipt(self) -> str | None:
        """The text that names this exposure to `observe` later or elsewhere, and pins a conversation.

        None if the answer is no evidence. An answer pinned to an older attempt hands back the receipt it was pinned by.
        """
        if self.pinned is not None:
            return encode_receipt(self.pinned)
        if self.rollout is None or self.attempt is None or self.arm is None or self.variant is None:
            return None
        pin = pin_hash(self.pin) if isinstance(self.pin, str) else self.pin
        where = cell(self.unit)
        return encode_receipt(
            Receipt(
                self.environment, self.flag, self.rollout, self.attempt, self.arm, self.variant, self.slot, where, pin
            )
        )

    def __repr__(self) -> str:
        """Without the unit: answers are logged, and users are not."""
        return f"Evaluation({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The same, for `rich`."""
        shown = ("flag", "value", "variant", "reason", "error", "revision", "rollout", "attempt", "arm")
        return [(name, getattr(self, name)) for name in shown if getattr(self, name) is not None]
