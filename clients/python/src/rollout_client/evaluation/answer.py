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


class Exposure(msgspec.Struct, frozen=True, gc=False):
    """Who was exposed when: enough to count it and to write its receipt, without hashing before someone asks.

    `unit` stays in the process. `pin` is the conversation's text or its hash; `cell` is None until it is
    asked for.
    """

    environment: str
    unit: str
    slot: int
    pin: str | int | None = None
    cell: int | None = None


class Evaluation(msgspec.Struct, frozen=True, gc=False):
    """One answer. `value` is the variant's value as stored in the ruleset: it is shared, so it must not be mutated.

    `attempt` is set only when the answer is evidence: given by the live randomised rule of a running
    attempt, or pinned to it. `rollout` and `arm` may be there without it (a lapsed lease, a cohort let in
    earlier, a pin to an older attempt).
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
    trail: Exposure | Receipt | None = None

    @property
    def receipt(self) -> str | None:
        """The text that names this exposure to `observe` later or elsewhere, and pins a conversation.

        None if the answer is no evidence. An answer pinned to an older attempt hands back the receipt it was pinned by.
        """
        trail = self.trail
        if isinstance(trail, Receipt):
            return encode_receipt(trail)
        if trail is None or self.rollout is None or self.attempt is None or self.arm is None or self.variant is None:
            return None
        pin = pin_hash(trail.pin) if isinstance(trail.pin, str) else trail.pin
        where = cell(trail.unit) if trail.cell is None else trail.cell
        return encode_receipt(
            Receipt(
                trail.environment, self.flag, self.rollout, self.attempt, self.arm, self.variant, trail.slot, where, pin
            )
        )
