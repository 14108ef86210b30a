"""Exclusion groups: rollouts of one group never share a unit, because each owns a range of the group's buckets.

The buckets of a group are hashed under a salt of its own, the same for all its rollouts: that makes the ranges
disjoint, and leaves the arms within a range as random as they are outside.
"""

from collections.abc import Sequence

import msgspec

from rollout.domain.document import Document, Problem, key_problems
from rollout.domain.share import percent, share_problems, width_of
from rollout_client.evaluation.ruleset import BUCKETS, Slice

SALT = "exclusion/"
"""What the salt of a group begins with; no key of a flag can contain a slash, and no salt of one may begin so."""


class Exclusion(Document, frozen=True, kw_only=True):
    """A rollout's place in a group: it takes `share` percent of the group's units, and no other rollout of it has any.

    The percentages of its stages are of this share; completing gives everyone the candidate.
    """

    group: str
    share: float


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """Buckets [start, end) of a group: allotted at the start of a rollout, kept until its end."""

    start: int
    end: int


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """An exposed rollout of a group, what it randomises (None: the targeting key), and the range it owns."""

    rollout: str
    unit: str | None
    range: Range


def exclusion_problems(exclusion: Exclusion | None) -> list[Problem]:
    """Problems of a rollout's place in a group; without one there are none."""
    if exclusion is None:
        return []
    return [
        *key_problems(exclusion.group, "exclusion.group"),
        *share_problems(exclusion.share, "exclusion.share", most=100),
    ]


def first_fit(taken: Sequence[Range], width: int) -> Range | None:
    """The lowest free range of a width, None when no gap is wide enough."""
    return next((Range(start=a, end=a + width) for a, b in _gaps(taken) if b - a >= width), None)


def no_place(exclusion: Exclusion, unit: str | None, holders: Sequence[Holder]) -> str | None:
    """Why a rollout cannot start in its group beside those that are exposed, and what to do; None when it can.

    Ranges of different units are not disjoint: whose user id lies in one range may have a session in another.
    """
    name = f"group {exclusion.group!r}"
    for holder in holders:
        if holder.unit != unit:
            theirs, ours = _unit(holder.unit), _unit(unit)
            return (
                f"{name} is divided by {theirs} ({holder.rollout}), and this rollout randomises {ours}: units of two "
                f"kinds cannot be kept apart; randomise {theirs}, use another group, or end {holder.rollout} first"
            )
    taken = [holder.range for holder in holders]
    if first_fit(taken, width_of(exclusion.share)) is not None:
        return None
    gaps = [b - a for a, b in _gaps(taken)]
    left, widest = sum(gaps), max(gaps, default=0)
    pieces = f", at most {percent(widest)} in one piece" if widest < left else ""
    held = ", ".join(f"{holder.rollout} holds {percent(holder.range.end - holder.range.start)}" for holder in holders)
    instead = f"or take a share of at most {percent(widest)} in a new rollout" if widest else "or use another group"
    return f"{name} has {percent(left)} left{pieces}; {held}; end one of them first, {instead}"


def place_said(exclusion: Exclusion | None, place: Range | None) -> str:
    """What a start records of its place; empty without a group."""
    if exclusion is None or place is None:
        return ""
    return f"owns {percent(place.start)} to {percent(place.end)} of group {exclusion.group!r}"


def slice_of(exclusion: Exclusion, place: Range) -> Slice:
    """A range as the rules of the rollout carry it."""
    return Slice(salt=SALT + exclusion.group, start=place.start, end=place.end)


def _gaps(taken: Sequence[Range]) -> list[tuple[int, int]]:
    """What nobody holds, in order."""
    edges = [0, *(edge for each in sorted(taken, key=lambda r: r.start) for edge in (each.start, each.end)), BUCKETS]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]


def _unit(unit: str | None) -> str:
    return "the targeting key" if unit is None else repr(unit)
