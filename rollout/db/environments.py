"""Environments, and the rulesets they have served."""

from datetime import datetime

from sqlalchemy import select, update

from rollout.db.session import UNCHANGED, Session
from rollout.db.tables import EnvironmentRow, RulesetRow
from rollout.domain.environment import Environment
from rollout_client.evaluation import lines
from rollout_client.evaluation.ruleset import Ruleset


async def every(session: Session) -> dict[str, Environment]:
    """All environments by key."""
    found = await session.execute(select(EnvironmentRow).order_by(EnvironmentRow.key))
    return {row.key: row.document for row in found.scalars()}


async def find(session: Session, key: str, *, lock: bool = False) -> Environment | None:
    """One environment as it is now; `lock` keeps others from changing it or publishing until the transaction ends."""
    row = await session.get(EnvironmentRow, key, with_for_update=UNCHANGED if lock else None, populate_existing=True)
    return row.document if row is not None else None


async def save(session: Session, environment: Environment, now: datetime) -> bool:
    """Insert or replace; whether it is new."""
    row = await session.get(EnvironmentRow, environment.key, with_for_update=UNCHANGED)
    if row is None:
        session.add(EnvironmentRow(key=environment.key, revision=0, edition="", document=environment, created_at=now))
    else:
        row.document = environment
    await session.flush()
    return row is None


async def next_revision(session: Session, key: str) -> tuple[int, str]:
    """Take the next ruleset number under the environment's row lock, which serialises publishing.

    Returns:
        The number, and the edition of the ruleset before it, which has the number before.
    """
    taken = await session.execute(
        update(EnvironmentRow)
        .where(EnvironmentRow.key == key)
        .values(revision=EnvironmentRow.revision + 1)
        .returning(EnvironmentRow.revision, EnvironmentRow.edition)
    )
    revision, edition = taken.one()
    return revision, edition


async def newest(session: Session) -> dict[str, tuple[int, str]]:
    """Number and edition of every environment's newest ruleset: the truth that every hint only points to."""
    found = await session.execute(select(EnvironmentRow.key, EnvironmentRow.revision, EnvironmentRow.edition))
    return {row.key: (row.revision, row.edition) for row in found}


async def keep_ruleset(session: Session, ruleset: Ruleset, now: datetime) -> None:
    """Store a ruleset for ever under its number."""
    session.add(
        RulesetRow(
            environment=ruleset.environment,
            revision=ruleset.revision,
            document=lines.encode(ruleset),
            created_at=now,
        )
    )
    await session.execute(
        update(EnvironmentRow)
        .where(EnvironmentRow.key == ruleset.environment)
        .values(revision=ruleset.revision, edition=ruleset.edition)
    )
    await session.flush()


async def rewrite_ruleset(session: Session, ruleset: Ruleset) -> None:
    """Take something out of a ruleset that is kept and served no more."""
    kept = (RulesetRow.environment == ruleset.environment, RulesetRow.revision == ruleset.revision)
    await session.execute(update(RulesetRow).where(*kept).values(document=lines.encode(ruleset)))


async def ruleset(session: Session, key: str, revision: int | None = None) -> bytes | None:
    """The encoded ruleset of a revision (None: the newest), None when there is none."""
    query = select(RulesetRow.document).where(RulesetRow.environment == key)
    if revision is not None:
        query = query.where(RulesetRow.revision == revision)
    return (await session.execute(query.order_by(RulesetRow.revision.desc()).limit(1))).scalar_one_or_none()


async def set_revision(session: Session, key: str, revision: int) -> None:
    """Give back a number that was taken for nothing; call under the row lock that took it."""
    await session.execute(update(EnvironmentRow).where(EnvironmentRow.key == key).values(revision=revision))
