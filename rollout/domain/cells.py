"""Sums by cluster cell: one arm's outcomes of one metric, in the 256 cells of a fixed hash of the unit.

A table: a row for n and one for each score, a column for each cell. Its size does not grow with what comes.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.stats.design_effect import CELLS

_WHOLE, _REAL = np.int64, np.float64
_EXACT = 2.0**53


class Cells(msgspec.Struct, frozen=True, dict=True, omit_defaults=True):
    """A table as it is stored: the cells in use in order (`at`, empty where all 256 are), and their part of each row.

    There is no row where nothing was counted. Counts are whole numbers and stay so. Sums of two tables are new ones.
    """

    at: list[int] = []
    rows: list[list[int | float]] = []

    @classmethod
    def of(cls, counted: Mapping[int, Sequence[float]], *, whole: bool = True) -> "Cells":
        """The table of counted cells, each [n, sum of each score]; what is in no cell is 0.

        Raises:
            ValueError: the cells are not equally long.
        """
        if not counted:
            return NO_CELLS
        kind, (width, *others) = (_WHOLE if whole else _REAL), {*map(len, counted.values())}
        if others:
            raise ValueError(f"cells of {width} and of {others} numbers are no table")
        numbers = np.fromiter(chain.from_iterable(counted.values()), kind, width * len(counted))
        return cls.placed(counted, numbers.reshape(-1, width).T)

    @classmethod
    def counts(cls, counted: Mapping[int, int]) -> "Cells":
        """The table of cells in which only n was counted."""
        if not counted:
            return NO_CELLS
        return cls.placed(counted, np.fromiter(counted.values(), _WHOLE, len(counted))[None, :])

    @classmethod
    def placed(cls, cells: Collection[int], columns: NDArray[Any]) -> "Cells":
        """The table with a column for each of some cells, (1 + scores, cells), and zeros in all others."""
        table = np.zeros((len(columns), CELLS), columns.dtype)
        table[:, np.fromiter(cells, np.intp, len(cells))] = columns
        return cls.holding(table)

    @classmethod
    def holding(cls, table: NDArray[Any]) -> "Cells":
        """The numbers of a table that nobody changes any more."""
        at = np.flatnonzero(table.any(axis=0))
        if not at.size:
            return NO_CELLS
        whole = at.size == CELLS
        made = cls(at=[] if whole else at.tolist(), rows=(table if whole else table[:, at]).tolist())
        table.flags.writeable = False
        made.__dict__["table"] = table
        return made

    @classmethod
    def rounded(cls, table: NDArray[Any]) -> "Cells":
        """The numbers of a table to the nearest whole ones, stored as such where that is exact."""
        whole = np.round(table)
        return cls.holding(whole.astype(_WHOLE) if np.abs(whole).max(initial=0.0) < _EXACT else whole)

    @cached_property
    def table(self) -> NDArray[Any]:
        """All of it, (1 + scores, 256), not to be changed."""
        rows = np.array(self.rows)
        if rows.dtype != _WHOLE:  # also of whole numbers that are too large
            rows = rows.astype(_REAL)
        table = np.zeros((len(rows), CELLS), rows.dtype)
        table[:, self.at or slice(None)] = rows
        table.flags.writeable = False
        return table

    def __add__(self, other: "Cells") -> "Cells":
        """Cell by cell; what was counted by fewer scores has 0 of the others."""
        if not self or not other:
            return self or other
        fewer, more = sorted((self.table, other.table), key=len)
        if len(fewer) == len(more):
            return Cells.holding(fewer + more)
        return Cells.holding(np.vstack([fewer + more[: len(fewer)], more[len(fewer) :]]))

    def __bool__(self) -> bool:
        """Whether anything was counted."""
        return bool(self.rows)

    def row(self, index: int) -> NDArray[Any]:
        """N (row 0) or the sum of a score (-1: the last) in each cell, (256,); zeros where nothing was counted."""
        return np.asarray(self.table[index]) if self else np.zeros(CELLS, _WHOLE)

    def scores(self, many: int) -> NDArray[np.float64]:
        """The sums of so many scores, (256, many); zeros where nothing was counted."""
        return self.table[1 : 1 + many].T.astype(_REAL) if self else np.zeros((CELLS, many))

    def total(self, index: int) -> float:
        """The same over all cells."""
        return float(self.row(index).sum())


NO_CELLS = Cells()
