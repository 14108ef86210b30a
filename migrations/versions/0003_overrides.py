"""Overrides: units that people gave a variant, until they end."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "overrides",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("flag", sa.String(length=100), nullable=False),
        sa.Column("environment", sa.String(length=100), nullable=False),
        sa.Column("unit", sa.String(length=500), nullable=False),
        sa.Column("variant", sa.String(length=100), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["environment"], ["environments.key"], name=op.f("fk_overrides_environment")),
        sa.ForeignKeyConstraint(["flag"], ["flags.key"], name=op.f("fk_overrides_flag")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_overrides")),
        sa.UniqueConstraint("environment", "flag", "unit", name=op.f("uq_overrides_environment_flag_unit")),
    )
    op.create_index(op.f("ix_overrides_expires_at"), "overrides", ["expires_at"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_overrides_expires_at"), table_name="overrides")
    op.drop_table("overrides")
