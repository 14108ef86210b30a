"""Alembic's entry: migrates through the connection that `rollout.db.migrate` gives, in one transaction."""

from typing import Any, Literal

from alembic import context

from rollout.db import tables
from rollout.db.base import Base, Json, UtcDateTime


def plain_types(kind: str, item: Any, _: Any) -> str | Literal[False]:
    """Migrations name the columns of the database, not the types of today's code."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, Json):
        return "sa.Text()"
    return False


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    transactional_ddl=True,
    render_as_batch=connection.dialect.name == "sqlite",
    render_item=plain_types,
    compare_type=True,
)
assert tables.EnvironmentRow.metadata is Base.metadata
with context.begin_transaction():
    context.run_migrations()
