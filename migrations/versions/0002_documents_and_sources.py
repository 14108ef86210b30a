"""Former versions of a rollout's document, and what the sources of metrics report about themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rollout_documents",
        sa.Column("rollout", sa.String(length=40), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.String(length=64), nullable=False),
        sa.Column("replaced_by", sa.String(length=200), nullable=False),
        sa.Column("replaced_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["rollout"], ["rollouts.id"], name=op.f("fk_rollout_documents_rollout")),
        sa.PrimaryKeyConstraint("rollout", "number", name=op.f("pk_rollout_documents")),
    )
    op.create_table(
        "sources",
        sa.Column("environment", sa.String(length=100), nullable=False),
        sa.Column("metric", sa.String(length=100), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["environment"], ["environments.key"], name=op.f("fk_sources_environment")),
        sa.ForeignKeyConstraint(["metric"], ["metrics.key"], name=op.f("fk_sources_metric")),
        sa.PrimaryKeyConstraint("environment", "metric", name=op.f("pk_sources")),
    )


def downgrade() -> None:
    op.drop_table("sources")
    op.drop_table("rollout_documents")
