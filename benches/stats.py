"""Statistics: what the tests of `rollout.stats` promise, and what the peers do on the same streams.

Every figure is simulated under a fixed seed (or enumerated) and printed with R and its Monte-Carlo standard error; a
target is met within two of them. Peers see the very same looks in the same run. GrowthBook is its own package, gbstats,
installed apart in `.tools/peers`; it is compared with the array form of its formula on a sample of looks.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from benches._stats import growthbook
from benches._stats.cells import Summary, run_all
from benches._stats.figures import Row, verdicts

TABLES = (
    "enumeration",
    "false_rollback",
    "sticky",
    "delay",
    "catastrophe",
    "advance",
    "stages",
    "sample_ratio",
    "value_rollback",
    "value_delay",
    "value_advance",
    "controller",
)
SPEED = "speed"


def table(name: str) -> ModuleType:
    """The module of a table."""
    return importlib.import_module(f"benches._stats.table_{name}")


def names() -> list[str]:
    """What `--only` takes."""
    return [*(name.replace("_", "-") for name in TABLES), SPEED]


def measure(chosen: Sequence[str], quick: bool, processes: int) -> list[Row]:
    """Run the chosen tables, print each as soon as it is complete, and return their rows in order."""
    tables = {name: table(name) for name in TABLES if name.replace("_", "-") in chosen}
    cells = {name: module.cells(quick) for name, module in tables.items()}
    owner = {cell.name: name for name, own in cells.items() for cell in own}
    results: dict[str, dict[str, Any]] = {name: {} for name in tables}
    rows: dict[str, list[Row]] = {}
    for done, (cell, result) in enumerate(run_all([cell for own in cells.values() for cell in own], processes), 1):
        name = owner[cell.name]
        results[name][cell.name] = result
        progress(f"{done} of {len(owner)} cells")
        if len(results[name]) == len(cells[name]):
            summary = tables[name].summary(results[name])
            rows[name] = list(summary.rows)
            show(name, summary)
    measured = [row for name in tables for row in rows[name]]
    return measured + (speed(quick) if SPEED in chosen else [])


def speed(quick: bool) -> list[Row]:
    """The rows that are timed on the real judge, after all simulations have ended."""
    rows: list[Row] = importlib.import_module("benches._stats_speed").rows(quick)
    print(f"\n{verdicts(rows)}", flush=True)
    return rows


def show(name: str, summary: Summary) -> None:
    """Print a table: what was simulated, the figures, and whether the claims hold."""
    progress("")
    print(f"\n== {name.replace('_', '-')}\n{summary.text}")
    for block in summary.blocks:
        print(f"\n{block.text()}")
    print(f"\n{verdicts(summary.rows)}", flush=True)


def progress(text: str) -> None:
    """Overwrite one line at a terminal; say nothing anywhere else."""
    if sys.stderr.isatty():
        print(f"\r{text:<40}", end="\r", file=sys.stderr, flush=True)


def main() -> int:
    """Measure, print the tables, and with --json one object last; 1 if a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, prog="bench stats")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="fewer replications and looks: under two minutes")
    parser.add_argument("--only", action="append", choices=names(), help="one table; may be repeated")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="cells side by side")
    wanted = parser.parse_args()
    began = time.perf_counter()
    if not growthbook.install():
        print("gbstats could not be installed (offline?): no figures for GrowthBook, and its comparison does not hold.")
    rows = measure(wanted.only or names(), wanted.quick, wanted.processes)
    holds = all(row.holds for row in rows)
    missed = [row for row in rows if not row.holds]
    print(f"\n{len(rows)} claims in {time.perf_counter() - began:.0f} s, {len(missed)} missed", end="")
    print(f":\n{verdicts(missed)}" if missed else ".")
    if wanted.json:
        print(json.dumps({"bench": "stats", "holds": holds, "rows": [row.document() for row in rows]}))
    return 0 if holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
