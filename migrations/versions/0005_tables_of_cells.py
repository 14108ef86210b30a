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
Holder = dict[str, Any]


def upgrade() -> None:
    _rewrite(_table)


def downgrade() -> None:
    _rewrite(_objects)


def _rewrite(change: Callable[[Any, bool], Any]) -> None:
    """Change every place of every rollout's evidence where sums by cell are kept, a rollout at a time."""
    rollouts, connection = sa.table("rollouts", sa.column("id"), sa.column("evidence")), op.get_bind()
    for identifier in connection.scalars(sa.select(rollouts.c.id)).all():
        of_this = rollouts.c.id == identifier
        evidence = json.loads(connection.scalar(sa.select(rollouts.c.evidence).where(of_this)) or "{}")
        for holder, key, counts_only in _places(evidence):
            holder[key] = change(holder[key], counts_only)
        stored = json.dumps(evidence, separators=(",", ":"))
        connection.execute(sa.update(rollouts).where(of_this).values(evidence=stored))


def _places(evidence: Holder) -> Iterator[tuple[Holder, str, bool]]:
    """(who holds it, under which key, whether it is a mere count)."""
    for sample in evidence.get("samples", {}).values():
        for arm in sample.get("cells", {}):
            yield sample["cells"], arm, True
    for metric in evidence.get("metrics", {}).values():
        sums = [arms.get(arm, {}) for kept in ("cells", "carried") for arms in metric.get(kept, {}).values() for arm in
                ("candidate", "baseline")]  # fmt: skip
        for holder in (*sums, *metric.get("past", {}).values()):
            if "cells" in holder:
                yield holder, "cells", False


def _table(cells: dict[str, Any], counts_only: bool) -> dict[str, Any]:
    """The cells in use in order, unless it is all of them, and the rows."""
    numbers = {int(cell): [found] if counts_only else found for cell, found in cells.items()}
    at = sorted(cell for cell, found in numbers.items() if any(found))
    rows = list(zip_longest(*(numbers[cell] for cell in at), fillvalue=0))  # a short one has zeros for the rest
    whole = not at or len(at) == CELLS
    return {**({} if whole else {"at": at}), **({"rows": rows} if rows else {})}


def _objects(table: dict[str, Any], counts_only: bool) -> dict[str, Any]:
    columns = zip(*table.get("rows", ()), strict=True)
    used = {str(cell): list(column) for cell, column in zip(table.get("at") or range(CELLS), columns, strict=False)}
    return {cell: column[0] for cell, column in used.items()} if counts_only else used
