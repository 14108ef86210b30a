"""The worst true change that is accepted: as written in a plan, as a line, and as an early gate widens it."""

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Direction = Literal["lower_is_better", "higher_is_better"]

# No early gate tolerates more than this, however small its exposure, unless the plan's own margin does.
LARGEST_RELATIVE_RISE = 5.0  # lower_is_better: six times the baseline's rate
LARGEST_RELATIVE_FALL = 0.5  # higher_is_better: half the baseline's rate
LARGEST_ABSOLUTE = 0.25


@dataclass(frozen=True, slots=True)
class Margin:
    """The worst tolerated true change of a rate.

    Attributes:
        size: the tolerated change, >= 0. Relative: a fraction of the baseline's rate (0.1 = ten percent of
        it).
            Absolute: a difference of rates (0.005 = half a percentage point) or of values, in their units.
        relative: whether `size` is relative to the baseline's rate.
        widening: how many times wider than what is accepted at the end an early gate has made it (`risk_scaled`).

    Raises:
        ValueError: if `size` is negative or not finite.
    """

    size: float
    relative: bool
    widening: float = field(default=1.0, compare=False)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.size) and self.size >= 0.0):
            raise ValueError(f"a margin is a finite number of at least 0, not {self.size}")


class NullLine(NamedTuple):
    """The line p_candidate = ratio * p_baseline + difference that parts tolerated changes from harm."""

    ratio: float
    difference: float


def null_line(margin: Margin, direction: Direction) -> NullLine:
    """The line that a margin draws.

    On it lies the worst tolerated candidate. lower_is_better: relative p_t = (1 + m) p_c, absolute
    p_t = p_c + d. higher_is_better: relative p_t = (1 - m) p_c, absolute p_t = p_c - d.

    Raises:
        ValueError: for a relative margin of 1 or more with higher_is_better, which nothing could ever exceed.
    """
    sign = 1.0 if direction == "lower_is_better" else -1.0
    if not margin.relative:
        return NullLine(1.0, sign * margin.size)
    if sign < 0.0 and margin.size >= 1.0:
        raise ValueError(
            f"a relative margin of {margin.size} with higher_is_better tolerates a fall to zero; choose one below 1"
        )
    return NullLine(1.0 + sign * margin.size, 0.0)


def risk_scaled(
    margin: Margin,
    direction: Direction,
    percentage_next: float,
    percentage_last: float,
    largest_absolute: float | None = None,
) -> Margin:
    """The margin of the gate that lets a rollout into `percentage_next`.

    The tolerated excess is inversely proportional to the exposure that the gate opens: a constant budget of
    expected harm (after Xu, Duan, Huang, "SQR: Balancing Speed, Quality and Risk in Online
    Experiments", KDD 2018). It is never below `margin`, and never above the larger of `margin` and the caps
    of this module. For gates only: the line of a rollback never moves.

    Args:
        margin: the worst change accepted at the end.
        direction: which way the metric is good.
        percentage_next: exposure after the gate, in percent, > 0.
        percentage_last: exposure of the last stage, in percent, > 0.
        largest_absolute: cap of an absolute margin in the metric's own units; None: a quarter, as of a proportion.

    Raises:
        ValueError: if a percentage is not positive.
    """
    if not (percentage_next > 0.0 and percentage_last > 0.0):
        raise ValueError(f"percentages must be positive, not {percentage_next} and {percentage_last}")
    if not margin.relative:
        largest = LARGEST_ABSOLUTE if largest_absolute is None else largest_absolute
    elif direction == "lower_is_better":
        largest = LARGEST_RELATIVE_RISE
    else:
        largest = LARGEST_RELATIVE_FALL
    widened = margin.size * max(1.0, percentage_last / percentage_next)
    size = min(widened, max(largest, margin.size))
    return Margin(size, margin.relative, size / margin.size if margin.size > 0.0 else 1.0)
