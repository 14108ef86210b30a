"""Overrides: people give one unit a variant for a while, and the engine ends it.

Units are personal data. An override's unit is in its row and in the ruleset that serves it, and nowhere else: not in
the audit trail, which names the override by an id of its own, nor in a log, nor in the rulesets that are kept as
history. When it ends the row goes, so nobody can say afterwards who it was. Clients keep the ruleset they were served
last. An overridden unit is in no arm and no evidence.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from rollout.db import audit, documents, environments, flag_states, overrides, rollouts
from rollout.db.audit import Entry
from rollout.db.session import Session
from rollout.delivery.publish import publish
from rollout.domain.flag import Flag
from rollout.domain.override import MOST, Override, OverrideRequest, end_of, override_problems, raises_exposure
from rollout.engine.control import Control, tell
from rollout.engine.rights import Actor
from rollout.errors import Conflict, Forbidden, Invalid, NotFound

ACTOR = "engine"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Whom an override is for: one unit of a flag in an environment."""

    flag: str
    environment: str
    unit: str


async def give(control: Control, place: Place, wanted: OverrideRequest, actor: Actor) -> Override:
    """Give a unit a variant until a moment, in the place of what it was given before.

    What everybody gets anyway (the default variant, what was released, a running rollout's baseline) takes nothing but
    a key that may change something; any other variant raises exposure.

    Raises:
        NotFound: no such flag or environment.
        Invalid: the flag has no such variant, there is no reason, or no end within 90 days.
        Forbidden: it raises exposure, and the actor may not.
        Conflict: it raises exposure, and the flag is killed; or the environment has too many.
    """
    now = control.now()
    async with control.database.write() as session:
        flag = await _known(session, place.flag, place.environment)
        problems = override_problems(wanted, flag, place.unit, now)
        if problems:
            raise Invalid([(problem.path, problem.message) for problem in problems])
        await _allow(session, flag, place.environment, wanted.variant, actor)
        before = await overrides.find(session, place.flag, place.environment, place.unit)
        if before is not None:
            await overrides.remove(session, [before])
        elif await overrides.count(session, place.environment, now) >= MOST:
            raise Conflict(
                f"{place.environment} has {MOST} overrides, and every client holds them all; end some, or name the "
                "units in a cohort"
            )
        override = Override(
            id=control.new_id("ov"), flag=place.flag, environment=place.environment, unit=place.unit,
            variant=wanted.variant, reason=wanted.reason, actor=actor.name, created_at=now,
            expires_at=end_of(wanted.expires, now),
        )  # fmt: skip
        await overrides.add(session, override)
        await publish(session, place.environment, now)
        detail = {
            "override": override.id, "variant": override.variant, "reason": override.reason,
            "expires_at": override.expires_at, **({} if before is None else {"instead_of": before.id}),
        }  # fmt: skip
        await audit.record(session, _entry("give", override, actor.name, now, detail))
    await tell(control)
    return override


async def end(control: Control, place: Place, actor: str, reason: str) -> Override:
    """End an override before its time: the unit gets what everybody like it gets.

    Raises:
        NotFound: no such flag, environment or override.
    """
    now = control.now()
    async with control.database.write() as session:
        await _known(session, place.flag, place.environment)
        override = await overrides.find(session, place.flag, place.environment, place.unit)
        if override is None:
            raise NotFound(f"this unit has no override of {place.flag!r} in {place.environment}; it may have ended")
        await _forget(session, [override], now)
        detail = {"override": override.id, "reason": reason}
        await audit.record(session, _entry("end", override, actor, now, detail))
    await tell(control)
    return override


async def expire(control: Control) -> int:
    """End every override whose time is over, each exactly once however many processes do this; how many.

    Those of one environment go in one transaction, with their audit rows and the ruleset without them.
    """
    ended = 0
    while await _due(control):
        now = control.now()
        async with control.database.write() as session:
            environment = await overrides.environment_of_expired(session, now)
            if environment is None:  # another process was at it
                return ended
            await environments.find(session, environment, lock=True)
            over = await overrides.expired(session, environment, now)
            if not over:
                continue
            await _forget(session, over, now)
            for override in over:
                await audit.record(session, _entry("expire", override, ACTOR, now, {"override": override.id}))
        ended += len(over)
        await tell(control)
    return ended


async def _due(control: Control) -> bool:
    """Asked of a reader, so that a second in which nothing ends costs no writer."""
    async with control.database.read() as session:
        until = await overrides.next_end(session)
    return until is not None and until <= control.now()


async def _forget(session: Session, over: Sequence[Override], now: datetime) -> None:
    """All of one environment."""
    await overrides.remove(session, over)
    await publish(session, over[0].environment, now, over)


async def _known(session: Session, flag: str, environment: str) -> Flag:
    """The flag, with its environment held: of two who give one unit a variant at once, the second replaces it.

    Whoever moves overrides takes the environment first, so nobody waits for another in a circle.
    """
    found = await documents.find(session, Flag, flag)
    if found is None:
        raise NotFound(f"there is no flag {flag!r}")
    if await environments.find(session, environment, lock=True) is None:
        raise NotFound(f"there is no environment {environment!r}")
    known: Flag = found[0]
    return known


async def _allow(session: Session, flag: Flag, environment: str, variant: str, actor: Actor) -> None:
    state = await flag_states.find(session, flag.key, environment)
    running = await rollouts.exposed_on(session, flag.key, environment)
    baseline = None if running is None else running.document.baseline
    if not raises_exposure(variant, (flag.default_variant, state.released, baseline)):
        return
    if not actor.may_operate:
        raise Forbidden(f"giving somebody {variant!r} raises exposure: it needs a key with the scope 'operator'")
    if state.killed:
        raise Conflict(f"the flag {flag.key!r} is killed in {environment}; restore it first")


def _entry(act: str, override: Override, actor: str, now: datetime, detail: Mapping[str, object]) -> Entry:
    return Entry(
        at=now, actor=actor, action=f"override.{act}", target=f"flag:{override.flag}",
        environment=override.environment, detail=detail,
    )  # fmt: skip
