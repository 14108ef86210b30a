"""Sums by cluster cell as tables, a list for each row, where they were a list for each cell in use."""

import json
from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

CELLS = 256
ARMS = ("candidate", "baseline")
Json = dict[str, Any]


def upgrade() -> None:
    _rewrite(_to_tables)


def downgrade() -> None:
    _rewrite(_to_objects)


def _rewrite(change: Callable[[Json], None]) -> None:
    """Change the evidence of every rollout, one at a time; a process that still runs must not judge meanwhile."""
    rollouts, connection = sa.table("rollouts", sa.column("id"), sa.column("evidence")), op.get_bind()
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("LOCK TABLE rollouts IN EXCLUSIVE MODE"))
    for identifier in connection.scalars(sa.select(rollouts.c.id)).all():
        of_this = rollouts.c.id == identifier
        evidence = json.loads(connection.execute(sa.select(rollouts.c.evidence).where(of_this)).scalar_one())
        change(evidence)
        stored = json.dumps(evidence, separators=(",", ":"))
        connection.execute(sa.update(rollouts).where(of_this).values(evidence=stored))


def _to_tables(evidence: Json) -> None:
    for sample in evidence.get("samples", {}).values():
        counted = {arm: {cell: [n] for cell, n in cells.items()} for arm, cells in sample.get("cells", {}).items()}
        sample["cells"] = {arm: table for arm, cells in counted.items() if (table := _table(cells))}
    for sums in _sums(evidence):
        table = _table(sums.pop("cells", {}))
        if table:
            sums["cells"] = table


def _to_objects(evidence: Json) -> None:
    for sample in evidence.get("samples", {}).values():
        counted = {arm: _objects(sample.get("cells", {}).get(arm, {})) for arm in ARMS}
        sample["cells"] = {arm: {cell: n for cell, (n,) in cells.items()} for arm, cells in counted.items()}
    for sums in _sums(evidence):
        if "cells" in sums:
            sums["cells"] = _objects(sums["cells"])


def _sums(evidence: Json) -> Iterator[Json]:
    """Whatever keeps sums of a metric's scores by cell."""
    for metric in evidence.get("metrics", {}).values():
        yield from metric.get("past", {}).values()
        for kept in ("cells", "carried"):
            for arms in metric.get(kept, {}).values():
                yield from (arms[arm] for arm in ARMS if arm in arms)


def _table(cells: Json) -> Json:
    """The cells in use in order, unless it is all of them, and the rows."""
    numbers = {int(cell): found for cell, found in cells.items() if any(found)}
    at = sorted(numbers)
    rows = list(zip_longest(*(numbers[cell] for cell in at), fillvalue=0))  # a short one has zeros for the rest
    return {**({"at": at} if 0 < len(at) < CELLS else {}), **({"rows": rows} if rows else {})}


def _objects(table: Json) -> Json:
    columns = zip(*table.get("rows", ()), strict=True)
    return {str(cell): list(column) for cell, column in zip(table.get("at") or range(CELLS), columns, strict=False)}
