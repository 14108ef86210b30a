"""Who asks, and what they may: `Authorization: Bearer rl_...`, scopes, environments, and a limit per key.

A route says whom it admits with `opt=admits(...)`; one that says nothing admits nobody. `admin` holds every scope;
`editor`, `approver` and `operator` hold `viewer`. A key is bound to one environment, or to none, which is all of them:
what belongs to another environment does not exist for it.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from litestar import Request
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from rollout.api.keyring import Keyring
from rollout.api.limits import Limiter
from rollout.db.keys import Key
from rollout.engine.rights import Actor
from rollout.errors import Forbidden, Malformed, Unauthenticated

KeyScope = Literal["sdk:read", "sdk:evidence", "viewer", "editor", "approver", "operator", "admin"]
SCOPES: tuple[KeyScope, ...] = get_args(KeyScope)
PEOPLE: tuple[KeyScope, ...] = ("viewer", "editor", "approver", "operator", "admin")
ANYONE: Literal["anyone"] = "anyone"
"""Admits requests without a key: health, and the description of the interface."""


def admits(*scopes: KeyScope | Literal["anyone"]) -> dict[str, Any]:
    """Route option: a key with any one of these scopes may ask."""
    return {"admits": frozenset(scopes)}


VIEW = admits("viewer")
EDIT = admits("editor")
REDUCE = admits("editor", "operator", "approver")
"""Whatever only takes exposure away: everybody who may change anything may do it."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The key behind a request."""

    key: Key

    @property
    def name(self) -> str:
        """How audit rows name the caller."""
        return self.key.actor

    @property
    def actor(self) -> Actor:
        """The caller in the engine's terms."""
        return Actor(
            name=self.name,
            person=self.key.name,
            may_operate=self.may("operator"),
            may_approve=self.may("approver"),
            is_admin=self.may("admin"),
        )

    def may(self, *scopes: str) -> bool:
        """Whether the key holds any of the scopes."""
        held = set(self.key.scopes)
        if held & {"editor", "approver", "operator"}:
            held.add("viewer")
        return "admin" in held or bool(held & set(scopes))

    def sees(self, environment: str | None) -> bool:
        """Whether something of this environment exists for the caller; what belongs to none exists for all."""
        return self.key.environment is None or environment in (None, self.key.environment)

    def require(self, environment: str) -> None:
        """Raise Forbidden unless the caller may act in this environment."""
        if not self.sees(environment):
            raise Forbidden(f"this key is bound to {self.key.environment!r}; use one for {environment!r}")

    def require_shared(self, what: str) -> None:
        """Raise Forbidden for a bound key: what all environments share is changed by keys of all environments."""
        if self.key.environment is not None:
            raise Forbidden(
                f"{what} are shared by all environments and this key is bound to {self.key.environment!r}; use a key "
                "without an environment (a bound key may change a flag's targeting in its own environment)"
            )

    def environment(self, asked: str | None) -> str:
        """The environment of an SDK's request: the key's own, or for an unbound key the one asked for."""
        bound = self.key.environment
        if bound is None:
            if asked is None:
                raise Malformed("this key is for every environment; say which with ?environment=", path="environment")
            return asked
        if asked not in (None, bound):
            raise Forbidden(f"this key is bound to {bound!r}; use one for {asked!r}", path="environment")
        return bound


async def caller_of(request: Request[Caller, Any, Any]) -> Caller:
    """Dependency `caller`: whoever the gatekeeper let in."""
    return request.user


class Gatekeeper(ASGIMiddleware):
    """Lets nobody pass whom the route does not admit, and nobody too often."""

    scopes = (ScopeType.HTTP,)

    def __init__(self, keyring: Keyring, limiter: Limiter) -> None:
        self._keyring = keyring
        self._limiter = limiter

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Put the caller into the scope, or raise Unauthenticated, TooMany or Forbidden."""
        admitted: frozenset[str] = scope["route_handler"].opt.get("admits", frozenset())
        if ANYONE not in admitted:
            key = await self._keyring.identify(_secret(scope))
            self._limiter.count(key.id, admitted)
            caller = Caller(key)
            if scope.get("method") == "OPTIONS":
                admitted = frozenset(SCOPES)
            if not caller.may(*admitted):
                needed = " or ".join(sorted(admitted)) or "none that exists"
                raise Forbidden(f"this needs a key with the scope {needed}; this key has {', '.join(key.scopes)}")
            scope["user"] = caller
        await next_app(scope, receive, send)


def _secret(scope: Scope) -> str:
    """The bearer token; raises Unauthenticated without one."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, secret = value.decode("latin-1").partition(" ")
            if kind.lower() == "bearer" and secret.strip():
                return secret.strip()
    raise Unauthenticated
