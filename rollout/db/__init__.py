"""The only room that knows SQL: tables, the unit of work, and named queries as functions.

For: one transaction at the edge (`Database.write`), rows that never leave, documents in and out.
May import: `rollout.domain`, `rollout.stats`, `rollout.errors`, SQLAlchemy, Alembic.
Never: decides anything, commits inside a query function, or reads a setting.
"""
