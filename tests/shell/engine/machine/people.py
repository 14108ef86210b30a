"""Who acts, and with which key: through the handlers of the interface, so that the rights are those of the product."""

from datetime import UTC, datetime
from typing import Any

from rollout.api.auth import Caller
from rollout.api.keyring import Keyring
from rollout.api.service import Service
from rollout.db.keys import Key
from rollout.engine.aside import Aside
from rollout.engine.control import Control
from rollout.errors import Forbidden

SCOPES: dict[str, tuple[str, ...]] = {
    "ann": ("editor", "operator"),
    "ben": ("editor", "operator", "approver"),
    "cay": ("approver",),
    "dot": ("viewer",),
    "eve": ("editor",),
    "fay": ("operator",),
    "root": ("admin",),
}
"""What each one's key admits to. Ann and Ben write most rollouts; Fay's key is bound to staging."""
BOUND = {"fay": "staging"}

CALLERS = {
    name: Caller(
        Key(
            id=f"k_{name}", name=name, scopes=scopes, environment=BOUND.get(name),
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
        )
    )
    for name, scopes in SCOPES.items()
}  # fmt: skip


def person(actor: str) -> str | None:
    """Whose key an audit row or a transition names; None for the engine."""
    name = actor.partition(" (")[0]
    return name if name in SCOPES else None


def may(name: str, scope: str) -> bool:
    """Whether a person's key admits to something."""
    return scope in SCOPES[name] or "admin" in SCOPES[name]


async def ask(handler: Any, name: str, control: Control, **data: Any) -> Any:
    """What a request with this person's key does: admitted as the gatekeeper admits, then handled.

    Raises:
        Forbidden: the route does not admit the key.
    """
    caller = CALLERS[name]
    if not caller.may(*handler.opt["admits"]):
        raise Forbidden(f"{name} is not admitted")
    service = Service(
        control=control, keyring=Keyring(control.database), nudge=lambda: None, aside=Aside(), most_decompressed=10**6,
        heartbeat=5.0, stream_life=600.0,
    )  # fmt: skip
    return await handler.fn(caller=caller, service=service, **data)
