"""A race: every method sees the same looks, and the first crossing of each of its lines is noted."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benches._stats.figures import Figure, mean

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Seen(Protocol):
    """The part of a look that a race needs."""

    number: int

    @property
    def units(self) -> Ints:
        """Candidate requests so far, (R,)."""


class Method(Protocol):
    """Something that decides, on R replications side by side.

    Attributes:
        lines: name -> the evidence at which a method of that name decides.
    """

    lines: Mapping[str, float]

    def look(self, seen: Any, waiting: Ints) -> Floats:
        """The evidence after one more look, (R,) or (lines, R); only the rows `waiting` are read, and NaN is none."""


@dataclass(frozen=True, slots=True)
class Crossings:
    """When one method decided, in each replication.

    Attributes:
        crossed: whether it did, (R,).
        units: candidate requests until then, or until the horizon, (R,).
        looks: looks until then, or until the horizon, (R,).
    """

    crossed: NDArray[np.bool_]
    units: Ints
    looks: Ints

    @property
    def rate(self) -> Figure:
        """How often it decided."""
        return mean(self.crossed)

    @property
    def delay(self) -> Figure:
        """Mean candidate requests until the decision, restricted at the horizon."""
        return mean(self.units, float(self.crossed.mean()))


def race(stream: Iterable[Seen], methods: Sequence[Method], replications: int) -> dict[str, Crossings]:
    """Show all looks of a stream to all methods, until each has decided in every replication."""
    names = [name for method in methods for name in method.lines]
    shape = (len(names), replications)
    crossed, units, looks = np.zeros(shape, bool), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for seen in stream:
        units[~crossed] = np.broadcast_to(seen.units, shape)[~crossed]
        looks[~crossed] = seen.number + 1
        place = 0
        for method in methods:
            own = slice(place, place + len(method.lines))
            place = own.stop
            waiting = np.flatnonzero(~crossed[own].all(axis=0))
            if waiting.size:
                evidence = method.look(seen, waiting)[..., waiting]
                over = evidence >= np.fromiter(method.lines.values(), np.float64)[:, None]
                crossed[own, waiting] |= over
        if crossed.all():
            break
    return {name: Crossings(crossed[row], units[row], looks[row]) for row, name in enumerate(names)}
