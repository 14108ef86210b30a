"""Who was exposed to what, lately: the exposure that an outcome belongs to, in bounded memory.

Two generations of one dictionary per flag: when the young one is full it becomes the old one and the former old one is
forgotten; whoever is seen again moves to the young. That is a least-recently-used cache for the cost of one look-up.
"""

from __future__ import annotations

from typing import Generic, TypeVar

Minute = TypeVar("Minute")


class Generations(Generic[Minute]):
    """Units of one flag in two generations."""

    __slots__ = ("old", "young")

    def __init__(self) -> None:
        self.young: dict[str, Minute] = {}
        self.old: dict[str, Minute] = {}


class Memory(Generic[Minute]):
    """Latest exposure per flag and unit; remembers between `limit` and twice `limit` units over all flags."""

    def __init__(self, limit: int) -> None:
        self.flags: dict[str, Generations[Minute]] = {}
        self._limit = limit
        self._young = 0

    def find(self, flag: str, unit: str) -> Minute | None:
        """Return the latest exposure of a unit to a flag, None when there was none or it is forgotten."""
        units = self.flags.get(flag)
        if units is None:
            return None
        return units.young.get(unit) or units.old.get(unit)

    def of(self, flag: str) -> Generations[Minute]:
        """Return the units of a flag, none at first."""
        units = self.flags.get(flag)
        if units is None:
            units = self.flags[flag] = Generations()
        return units

    def remember(self, flag: str, unit: str, minute: Minute) -> None:
        """Take note of the latest exposure of a unit to a flag."""
        units = self.of(flag)
        if unit not in units.young:
            self._young += 1
            if self._young > self._limit:
                self._age()
                units = self.of(flag)
        units.young[unit] = minute

    def _age(self) -> None:
        self._young = 1
        for flag, units in list(self.flags.items()):
            units.old, units.young = units.young, {}
            if not units.old:
                del self.flags[flag]
