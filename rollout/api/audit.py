"""The audit trail: who changed what, when; append-only, newest first."""

from typing import Annotated

import msgspec
from litestar import Router, get
from litestar.di import NamedDependency
from litestar.params import FromQuery, QueryParameter

from rollout.api.auth import VIEW, Caller
from rollout.api.problems import REFUSALS
from rollout.api.service import Service
from rollout.db import audit
from rollout.db.audit import Entry


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    """Entries of what exists for the key; `next` is the `before` of the page that follows, null at the end."""

    entries: list[Entry]
    next: int | None


@get("/", opt=VIEW, responses=REFUSALS)
async def list_audit(
    service: NamedDependency[Service],
    caller: NamedDependency[Caller],
    before: Annotated[int | None, QueryParameter(ge=1, le=2**62)] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
    target: FromQuery[str | None] = None,
) -> AuditPage:
    """A page of the trail; `target` is like `flag:support-answer`."""
    async with service.control.database.read() as session:
        found = await audit.page(session, before=before, limit=limit, target=target)
    following = found[-1].id if len(found) == limit else None
    return AuditPage(
        entries=[_visible(caller, entry) for entry in found if caller.sees(entry.environment)], next=following
    )


def _visible(caller: Caller, entry: Entry) -> Entry:
    """A shared document's row as a bound key may read it: that it changed, not what it holds for other environments."""
    if caller.key.environment is None or entry.environment is not None or not isinstance(entry.detail, dict):
        return entry
    return msgspec.structs.replace(entry, detail={k: v for k, v in entry.detail.items() if k != "document"})


routes = Router("/audit", route_handlers=[list_audit], tags=["audit"])
