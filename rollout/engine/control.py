"""What every act of the engine needs: the database, the hub to tell, the clock, and new identifiers."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from rollout.db.session import Database
from rollout.delivery.hub import Hub

_log = structlog.get_logger("rollout.engine")


def utc_now() -> datetime:
    """This moment."""
    return datetime.now(UTC)


def new_id(prefix: str) -> str:
    """An identifier nobody else will make: the prefix and 16 hexadecimal digits."""
    return f"{prefix}_{secrets.token_hex(8)}"


@dataclass(frozen=True, slots=True)
class Control:
    """The engine's hands. Tests pass a clock of their own."""

    database: Database
    hub: Hub
    now: Callable[[], datetime] = field(default=utc_now)
    new_id: Callable[[str], str] = field(default=new_id)


async def tell(control: Control) -> None:
    """Let this process serve what was just committed; what fails here is made good by the next refresh."""
    try:
        await control.hub.refresh()
    except Exception:
        _log.exception("the hub could not follow at once")
