"""Keyed documents: flags, cohorts and metrics. Checked, saved, published and recorded in one transaction.

`POST` makes a new one, `PUT` makes or replaces it whole; with `If-Match: "REVISION"` only if nobody else did meanwhile.
Every answer carries the revision as its ETag.
"""

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from litestar import Response
from litestar.params import HeaderParameter

from rollout.api.auth import Caller
from rollout.api.service import Service
from rollout.db import audit, documents, rollouts, world
from rollout.db.audit import Entry
from rollout.db.session import Session
from rollout.db.world import World
from rollout.delivery.publish import publish_everywhere
from rollout.domain.cohort import Cohort
from rollout.domain.document import Problem, same
from rollout.domain.flag import Flag
from rollout.domain.metric import Metric
from rollout.errors import Conflict, Invalid, Malformed, NotFound

D = TypeVar("D", Flag, Cohort, Metric)
K = TypeVar("K")
Check = Callable[[D, D | None, World], Sequence[Problem]]
"""(document, what it replaces, what it may refer to) -> everything wrong with it."""
IfMatch = Annotated[str | None, HeaderParameter(name="If-Match")]
_ETAG = re.compile(r'(?:W/)?"(\d{1,15})"', re.ASCII)


class Stored(msgspec.Struct, Generic[K], frozen=True):
    """One document of a list, with its revision."""

    revision: int
    document: K


async def listed(service: Service, kind: type[D]) -> list[Stored[D]]:
    """Every document of a kind, by key."""
    async with service.control.database.read() as session:
        found = await documents.every(session, kind)
    return [Stored(revision, document) for document, revision in found.values()]


async def one(service: Service, kind: type[D], key: str) -> Response[D]:
    """One document under its ETag; raises NotFound."""
    async with service.control.database.read() as session:
        found = await documents.find(session, kind, key)
    if found is None:
        raise NotFound(f"there is no {kind.__name__.lower()} {key!r}")
    return tagged(found[0], found[1])


async def save(service: Service, caller: Caller, document: D, check: Check[D], expected: int | None) -> Response[D]:
    """Make or replace a document; `expected` is the revision it has (0: it is not there yet; None: whatever it is).

    Raises:
        Invalid: the document has problems.
        Conflict: another revision is stored than the expected one.
        Forbidden: the key is bound to an environment, and this is shared by all.
    """
    kind = type(document)
    name = kind.__name__.lower()
    now = service.control.now()
    async with service.control.database.write() as session:
        found = await documents.find(session, kind, document.key, lock=True)
        before, revision = found if found is not None else (None, 0)
        document = with_the_rest(caller, document, before)
        may_edit(caller, document, before)
        _expect(expected, revision, name, document.key)
        refuse(check(document, before, await world.load(session)))
        await _keep_default(session, document, before)
        saved = await documents.save(session, document, found)
        if saved != revision:
            detail = {"revision": saved, "document": document}
            await audit.record(session, Entry(
                at=now, actor=caller.name, action=f"{name}.{'create' if before is None else 'change'}",
                target=f"{name}:{document.key}", detail=detail,
            ))  # fmt: skip
            if kind is not Metric:
                await publish_everywhere(session, now)
    await service.control.hub.refresh()
    return tagged(visible(caller, document), saved, 201 if before is None else 200)


async def _keep_default(session: Session, document: Any, before: Any) -> None:
    """What everyone gets outside the arms, and by a kill, is no editor's to change while a rollout exposes somebody."""
    if not (isinstance(document, Flag) and isinstance(before, Flag)):
        return
    if document.default_variant == before.default_variant:
        return
    running = await rollouts.exposed_somewhere(session, document.key)
    if running:
        raise Conflict(
            f"rollout {running[0]} runs on this flag, and a kill serves the default variant; end it first",
            path="default_variant",
        )


def _expect(expected: int | None, stored: int, name: str, key: str) -> None:
    if expected is None or expected == stored:
        return
    if expected == 0:
        raise Conflict(f"there is a {name} {key!r} already; PUT replaces it")
    raise Conflict(f"{key!r} is at revision {stored}, not {expected}; read it again and repeat the change")


def visible(caller: Caller, document: Any) -> Any:
    """A flag without the targeting of environments that do not exist for a bound key; anything else as it is."""
    bound = caller.key.environment
    if bound is None or not isinstance(document, Flag):
        return document
    return msgspec.structs.replace(document, targeting={k: v for k, v in document.targeting.items() if k == bound})


def with_the_rest(caller: Caller, document: Any, before: Any) -> Any:
    """A bound key's flag, with the targeting it could not see put back."""
    if caller.key.environment is None or not isinstance(document, Flag) or not isinstance(before, Flag):
        return document
    unseen = {k: v for k, v in before.targeting.items() if k != caller.key.environment}
    return msgspec.structs.replace(document, targeting={**unseen, **document.targeting})


def may_edit(caller: Caller, document: Any, before: Any) -> None:
    """What environments share is for unbound keys to edit; a bound one may edit a flag's targeting in its own.

    Raises:
        Forbidden: the change reaches further than the key.
    """
    bound = caller.key.environment
    if bound is not None and isinstance(document, Flag) and isinstance(before, Flag):
        theirs, ours = (
            msgspec.structs.replace(flag, targeting={k: v for k, v in flag.targeting.items() if k != bound})
            for flag in (document, before)
        )
        if same(theirs, ours):
            return
    caller.require_shared(f"{type(document).__name__.lower()}s")


def refuse(problems: Sequence[Problem]) -> None:
    """Raise Invalid when there is any problem."""
    if problems:
        raise Invalid([(problem.path, problem.message) for problem in problems])


def same_key(path: str, document: Any) -> None:
    """Raise Invalid when a document is put under another key than its own."""
    if document.key != path:
        raise Invalid([("key", f"the address says {path!r}; write the same key here, or PUT to its own address")])


def expected_revision(if_match: str | None) -> int | None:
    """The revision of an If-Match header; None without one (or with `*`). Raises Malformed when it is none."""
    if if_match is None or if_match.strip() == "*":
        return None
    match = _ETAG.fullmatch(if_match.strip())
    if match is None:
        raise Malformed('If-Match is a revision in quotes, such as "3", as the ETag of an answer gives it')
    return int(match[1])


def tagged(document: Any, revision: int, status: int = 200) -> Response[Any]:
    """An answer with the revision as its ETag."""
    return Response(document, status_code=status, headers={"ETag": f'"{revision}"'})
