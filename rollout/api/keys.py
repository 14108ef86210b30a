"""Keys: made here, shown once, revoked here. The service keeps a hash of each and cannot show it again.

An evidence key can forge a verdict and a read key cannot: give `sdk:evidence` only to processes that send evidence.
"""

import secrets
from datetime import datetime

import msgspec
from litestar import Router, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from rollout.api.auth import SCOPES, Caller, KeyScope, admits
from rollout.api.documents import refuse
from rollout.api.problems import REFUSALS
from rollout.api.service import Service
from rollout.db import audit, environments, keys
from rollout.db.audit import Entry
from rollout.db.keys import Key
from rollout.db.session import Session
from rollout.domain.document import Document, Problem
from rollout.errors import NotFound

ADMIN = admits("admin")


class KeyRequest(Document, frozen=True, kw_only=True):
    """A new key. Without an environment it is for all of them."""

    name: str
    scopes: tuple[KeyScope, ...]
    environment: str | None = None


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key with its secret, which nobody can show again."""

    id: str
    secret: str
    name: str
    scopes: tuple[str, ...]
    environment: str | None
    created_at: datetime


async def make(session: Session, key: Key, secret: str, actor: str) -> None:
    """Store a key and say so in the audit trail (never its secret)."""
    await keys.add(session, key, secret)
    detail = {"name": key.name, "scopes": list(key.scopes)}
    await audit.record(session, Entry(
        at=key.created_at, actor=actor, action="key.create", target=f"key:{key.id}",
        environment=key.environment, detail=detail,
    ))  # fmt: skip


@get("/", opt=ADMIN, responses=REFUSALS)
async def list_keys(service: NamedDependency[Service], caller: NamedDependency[Caller]) -> list[Key]:
    """Every key that exists for this one, revoked ones too, without secrets."""
    async with service.control.database.read() as session:
        found = await keys.every(session)
    return [key for key in found if _manages(caller, key.environment)]


@post("/", opt=ADMIN, responses=REFUSALS)
async def create_key(
    data: JSONBody[KeyRequest], service: NamedDependency[Service], caller: NamedDependency[Caller]
) -> NewKey:
    """Make a key; the answer shows its secret, this once."""
    if data.environment is None:
        caller.require_shared("keys without an environment")
    else:
        caller.require(data.environment)
    key = Key(
        id=secrets.token_hex(6),
        name=data.name.strip(),
        scopes=data.scopes,
        environment=data.environment,
        created_at=service.control.now(),
    )
    secret = f"rl_{key.id}_{secrets.token_urlsafe(32)}"
    async with service.control.database.write() as session:
        refuse(_problems(key, frozenset(await environments.every(session))))
        await make(session, key, secret, caller.name)
    service.keyring.forget()
    return NewKey(
        id=key.id, secret=secret, name=key.name, scopes=key.scopes, environment=key.environment,
        created_at=key.created_at,
    )  # fmt: skip


@delete("/{key:str}", status_code=200, opt=ADMIN, responses=REFUSALS)
async def revoke_key(key: FromPath[str], service: NamedDependency[Service], caller: NamedDependency[Caller]) -> Key:
    """Make a key useless: at once in this process, within two seconds in every other."""
    now = service.control.now()
    async with service.control.database.write() as session:
        known = next((each for each in await keys.every(session) if each.id == key), None)
        revoked = await keys.revoke(session, key, now) if known and _manages(caller, known.environment) else None
        if known is None or revoked is None:
            raise NotFound(f"there is no key {key!r}")
        if known.revoked_at is None:
            await audit.record(session, Entry(
                at=now, actor=caller.name, action="key.revoke", target=f"key:{key}",
                environment=known.environment, detail={"name": known.name},
            ))  # fmt: skip
    service.keyring.forget()
    return revoked


def _manages(caller: Caller, environment: str | None) -> bool:
    return caller.key.environment in (None, environment)


def _problems(key: Key, known: frozenset[str]) -> list[Problem]:
    problems = []
    if not key.name or len(key.name) > 100:
        problems.append(Problem("name", "name the key by who uses it, in 1 to 100 characters"))
    if not key.scopes:
        problems.append(Problem("scopes", f"give at least one of {', '.join(SCOPES)}"))
    if key.environment is not None and key.environment not in known:
        some = ", ".join(sorted(known)) or "none yet"
        message = f"there is no environment {key.environment!r} (known: {some}); create it first or correct the name"
        problems.append(Problem("environment", message))
    return problems


routes = Router("/keys", route_handlers=[list_keys, create_key, revoke_key], tags=["keys"])
