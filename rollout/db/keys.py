"""Access keys. A key is `rl_<id>_<secret>`; only SHA-256 of the whole is stored (the secret is 32 random bytes)."""

import hashlib
import hmac
from datetime import datetime

import msgspec
from sqlalchemy import func, select

from rollout.db.session import Session
from rollout.db.tables import KeyRow


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks: `environment` None is every environment."""

    id: str
    name: str
    scopes: tuple[str, ...]
    environment: str | None
    created_at: datetime
    revoked_at: datetime | None = None

    @property
    def actor(self) -> str:
        """How audit rows name this key."""
        return f"{self.name} ({self.id})"


async def add(session: Session, key: Key, secret: str) -> None:
    """Store a new key by the hash of its secret."""
    session.add(
        KeyRow(
            id=key.id,
            name=key.name,
            hash=digest(secret),
            scopes=list(key.scopes),
            environment=key.environment,
            created_at=key.created_at,
        )
    )
    await session.flush()


async def identify(session: Session, secret: str) -> Key | None:
    """The unrevoked key with this secret, None when there is none."""
    wanted = digest(secret)
    row = (await session.execute(select(KeyRow).where(KeyRow.hash == wanted))).scalar_one_or_none()
    if row is None or row.revoked_at is not None or not hmac.compare_digest(row.hash, wanted):
        return None
    return _key(row)


async def is_active(session: Session, identifier: str) -> bool:
    """Whether there is such a key and nobody has revoked it."""
    row = await session.get(KeyRow, identifier)
    return row is not None and row.revoked_at is None


async def every(session: Session) -> list[Key]:
    """All keys, revoked ones too, oldest first; never a secret."""
    rows = await session.execute(select(KeyRow).order_by(KeyRow.created_at, KeyRow.id))
    return [_key(row) for row in rows.scalars()]


async def count(session: Session) -> int:
    """How many keys were ever made."""
    return (await session.execute(select(func.count()).select_from(KeyRow))).scalar_one()


async def revoke(session: Session, identifier: str, now: datetime) -> Key | None:
    """Make a key useless; None when there is no such key."""
    row = await session.get(KeyRow, identifier, with_for_update=True)
    if row is None:
        return None
    row.revoked_at = row.revoked_at or now
    await session.flush()
    return _key(row)


def digest(secret: str) -> str:
    """What is stored instead of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _key(row: KeyRow) -> Key:
    return Key(
        id=row.id,
        name=row.name,
        scopes=tuple(row.scopes),
        environment=row.environment,
        created_at=row.created_at,
        revoked_at=row.revoked_at,
    )
