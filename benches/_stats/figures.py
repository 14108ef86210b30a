"""What was measured, how sure it is, and whether it meets its target: rows, blocks, and how they are printed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

ALLOWED_ERRORS = 2.0  # a target is met within so many Monte-Carlo standard errors


@dataclass(frozen=True, slots=True)
class Figure:
    """A simulated value.

    Attributes:
        value: the estimate.
        error: its Monte-Carlo standard error; 0 for what was computed exactly.
        found: the part of the replications that were decided; below 1 a mean is restricted at the horizon, so the
            true one is larger.
    """

    value: float
    error: float = 0.0
    found: float = 1.0

    def over(self, limit: float) -> "Figure":
        """The figure as a multiple of `limit`."""
        return Figure(self.value / limit, self.error / limit, self.found)

    def __str__(self) -> str:
        """Three significant digits, the standard error, and the part found if it is not all."""
        more = "" if self.found > 0.9995 else f" {self.found:.0%}"
        return f"{'>' if more else ''}{_short(self.value)} ±{_short(self.error)}{more}"


def mean(values: ArrayLike, found: float = 1.0) -> Figure:
    """The mean of independent replications."""
    sample = np.asarray(values, np.float64)
    return Figure(float(sample.mean()), float(sample.std(ddof=1) / math.sqrt(sample.size)), found)


def median(values: ArrayLike) -> Figure:
    """The median of independent replications; its error from the order statistics one sigma to either side."""
    sample = np.sort(np.asarray(values, np.float64))
    half = 0.5 * math.sqrt(sample.size)
    low, high = (int(np.clip(sample.size / 2 + side * half, 0, sample.size - 1)) for side in (-1.0, 1.0))
    return Figure(float(np.median(sample)), float(sample[high] - sample[low]) / 2.0)


def quotient(of: ArrayLike, by: ArrayLike) -> Figure:
    """The ratio of two means over the same replications, with the error of the delta method."""
    above, below = np.asarray(of, np.float64), np.asarray(by, np.float64)
    ratio = float(above.mean() / below.mean())
    residual = above - ratio * below
    return Figure(ratio, float(residual.std(ddof=1) / math.sqrt(above.size) / below.mean()))


@dataclass(frozen=True, slots=True)
class Row:
    """One claim, as it stands in the bench's JSON; without a target it is shown, not judged.

    Attributes:
        name: the claim; says "at least" when the target is a lower bound.
        value: measured; None when it could not be measured, and then the claim does not hold.
        unit: of value, target, floor and peers.
        target: the bound.
        holds: whether the value keeps it, within two Monte-Carlo standard errors.
        floor: what nothing can beat: the information limit, or the oracle that knows the truth.
        peers: the same figure of other methods, on the same streams.
        error: Monte-Carlo standard error of the value; printed, not in the JSON.
    """

    name: str
    value: float | None
    unit: str
    target: float | None = None
    holds: bool = True
    floor: float | None = None
    peers: Mapping[str, float] = field(default_factory=dict)
    error: float = 0.0

    def document(self) -> dict[str, Any]:
        """The row as JSON; what is not finite becomes null."""
        row = asdict(self) | {"holds": bool(self.holds)}
        del row["error"]
        row["value"], row["floor"] = _finite(self.value), _finite(self.floor)
        row["peers"] = {name: _finite(value) for name, value in self.peers.items()}
        return row


def rate_at_most(name: str, crossed: NDArray[np.bool_], target: float, peers: Mapping[str, float]) -> Row:
    """A claim "not more often than `target`"; the error allowed is that of a true rate on the target."""
    rate, allowed = mean(crossed), ALLOWED_ERRORS * math.sqrt(target * (1.0 - target) / crossed.size)
    return Row(name, rate.value, "probability", target, rate.value <= target + allowed, None, peers, rate.error)


def at_most(
    name: str, figure: Figure, unit: str, target: float, floor: float | None, peers: Mapping[str, float]
) -> Row:
    """A claim that a figure is not above its target."""
    holds = figure.value - ALLOWED_ERRORS * figure.error <= target
    return Row(name, figure.value, unit, target, holds, floor, peers, figure.error)


def at_least(name: str, figure: Figure, unit: str, target: float, peers: Mapping[str, float]) -> Row:
    """A claim that a figure is not below its target."""
    holds = figure.value + ALLOWED_ERRORS * figure.error >= target
    return Row(f"{name} (at least)", figure.value, unit, target, holds, None, peers, figure.error)


@dataclass(frozen=True, slots=True)
class Block:
    """A table for people: one line per method, one column per cell.

    Attributes:
        title: what was measured, with R.
        columns: headings.
        lines: method -> its figure (or a text) in each column.
    """

    title: str
    columns: Sequence[str]
    lines: Mapping[str, Sequence[Figure | str]]

    def text(self) -> str:
        """The block, aligned; every figure with its Monte-Carlo standard error."""
        cells = {"": list(self.columns)} | {name: [str(each) for each in line] for name, line in self.lines.items()}
        wide = max(map(len, cells)) + 2
        widths = [max(map(len, column)) + 2 for column in zip(*cells.values(), strict=True)]
        lines = [
            f"{name:<{wide}}" + "".join(f"{text:>{width}}" for text, width in zip(texts, widths, strict=True))
            for name, texts in cells.items()
        ]
        return "\n".join([self.title, *(line.rstrip() for line in lines)])


def multiples(
    lines: Mapping[str, Sequence[Figure | str]],
    limits: Sequence[float],
    own: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, list[Figure | str]]:
    """The lines with each figure followed by how many times its column's limit it is; `own` limits for some lines."""
    of_line = own or {}
    return {
        name: [
            f"{figure} {figure.value / limit:.2f}x" if isinstance(figure, Figure) else figure
            for figure, limit in zip(figures, of_line.get(name, limits), strict=True)
        ]
        for name, figures in lines.items()
    }


def verdicts(rows: Sequence[Row]) -> str:
    """One line per claim: whether it holds, its figure, its target."""
    wide = max((len(row.name) for row in rows), default=0) + 2
    lines = []
    for row in rows:
        mark = "    " if row.target is None else "ok  " if row.holds else "MISS"
        error = f" ±{_short(row.error)}" if row.error else ""
        value = "-" if row.value is None else f"{_short(row.value)}{error}"
        target = "" if row.target is None else f"  target {_short(row.target)}"
        floor = "" if row.floor is None else f"  floor {_short(row.floor)}"
        lines.append(f"{mark} {row.name:<{wide}}{value:>16} {row.unit}{target}{floor}")
    return "\n".join(lines)


def _short(value: float) -> str:
    if not math.isfinite(value):
        return "never"
    if value == 0.0 or abs(value) >= 999.5:
        return f"{value:,.0f}"
    if abs(value) < 5e-5:
        return f"{value:.0e}"
    digits = min(4, max(0, 2 - math.floor(math.log10(abs(value)))))
    return f"{value:.{digits}f}"


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
