"""Shares of the units: percentages with a finest step of one bucket."""

from rollout.domain.document import Problem
from rollout_client.evaluation.ruleset import BUCKETS


def share_problems(share: float, path: str, *, most: float) -> list[Problem]:
    """A share is above 0, at most so much, and a whole number of thousandths."""
    if not 0 < share <= most:
        return [Problem(path, f"must be above 0 and at most {most:g}")]
    if abs(share * BUCKETS / 100 - width_of(share)) > 1e-6:
        return [Problem(path, "the finest step is 0.001; round it")]
    return []


def width_of(share: float) -> int:
    """A percentage as a number of buckets."""
    return round(share * BUCKETS / 100)


def percent(width: int) -> str:
    """A number of buckets as people read it."""
    return f"{width * 100 / BUCKETS:g} %"
