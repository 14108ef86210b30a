"""An override: a person gives one unit a variant, with a reason and an end.

For a tester, a customer on the line, somebody who must not get the candidate. It beats rules, rollouts, leases and
pins, and as long as it lasts an override of the same unit in the flag's document, which was written earlier and for
good. A killed flag and unmet prerequisites beat it. It is served until its end whatever becomes of a rollout meanwhile:
neither a rollback nor a lapse takes it back, ending it does.
"""

from collections.abc import Collection
from datetime import datetime, timedelta

import msgspec

from rollout.domain.document import Document, Problem, Why, duration
from rollout.domain.flag import Flag

LONGEST = timedelta(days=90)
LONGEST_UNIT = 500
MOST = 1000
"""Overrides of an environment: each is in the ruleset of every client."""


class OverrideRequest(Document, frozen=True, kw_only=True):
    """What a person asks for. `expires`: a duration from now ("24h") or a moment ("2026-03-02T12:00:00Z")."""

    variant: str
    reason: Why
    expires: str


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """Who gets what, given by whom, why, and until when. `id` is how the audit trail names it."""

    id: str
    flag: str
    environment: str
    unit: str
    variant: str
    reason: str
    actor: str
    created_at: datetime
    expires_at: datetime


def end_of(expires: str, now: datetime) -> datetime:
    """The moment that `expires` says.

    Raises:
        ValueError: it is neither a duration nor a moment with its zone, or not within the next 90 days.
    """
    try:
        moment = datetime.fromisoformat(expires) if expires[4:5] == "-" else now + duration(expires)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(
            f"{expires!r} is no end: write a duration such as '24h', or a moment with its zone such as "
            "'2026-03-02T12:00:00Z'"
        )
    if not now < moment <= now + LONGEST:
        raise ValueError(f"{expires!r} is not within the next {LONGEST.days} days; an override ends, give it anew then")
    return moment


def override_problems(wanted: OverrideRequest, flag: Flag, unit: str, now: datetime) -> list[Problem]:
    """Everything wrong with what is asked for."""
    problems = []
    if not unit or len(unit) > LONGEST_UNIT or not unit.isprintable():
        problems.append(Problem("unit", f"name the unit in 1 to {LONGEST_UNIT} printable characters"))
    if wanted.variant not in flag.variants:
        known = ", ".join(sorted(flag.variants))
        problems.append(Problem("variant", f"flag {flag.key!r} has no variant {wanted.variant!r}; it has {known}"))
    if not wanted.reason.strip():
        problems.append(Problem("reason", "say why; it is recorded, so name nobody in it"))
    try:
        end_of(wanted.expires, now)
    except ValueError as error:
        problems.append(Problem("expires", str(error)))
    return problems


def raises_exposure(variant: str, harmless: Collection[str | None]) -> bool:
    """Whether it gives somebody more than everybody gets: not the default, what was released, or a baseline."""
    return variant not in harmless
