"""Cells: what is simulated under one seed, in one process, and how many of them are run side by side."""

import multiprocessing
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from benches._stats.figures import Block, Row


@dataclass(frozen=True)
class Cell:
    """A simulation that can be run anywhere.

    Attributes:
        name: unique in the bench; the seed is made from it, so a cell gives the same figures whatever else is run.
        run: a function of a module, called with `rng` and the arguments.
        arguments: by name; they must pickle.
    """

    name: str
    run: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self) -> Any:
        """The cell's result."""
        return self.run(rng=np.random.default_rng(zlib.crc32(self.name.encode())), **self.arguments)


@dataclass(frozen=True)
class Summary:
    """What a table says: what was simulated, blocks for people, rows for the JSON."""

    text: str
    blocks: Sequence[Block]
    rows: Sequence[Row]


class Table(Protocol):
    """A module `table_*.py`."""

    NAME: str

    def cells(self, quick: bool) -> list[Cell]:
        """What is to be simulated; quick is smaller."""

    def summary(self, results: Mapping[str, Any]) -> Summary:
        """What came out, from cell name -> result."""


def run_all(cells: Sequence[Cell], processes: int) -> Iterator[tuple[Cell, Any]]:
    """Run cells, and give each with its result as it is done; with one process, in this one."""
    if processes <= 1:
        yield from ((cell, cell()) for cell in cells)
        return
    # Spawned processes read this when they load numpy: two cells side by side must not share out each product.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for number, result in pool.imap_unordered(_numbered, list(enumerate(cells))):
            yield cells[number], result


def _numbered(item: tuple[int, Cell]) -> tuple[int, Any]:
    number, cell = item
    return number, cell()
