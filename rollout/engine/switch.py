"""Kill and restore: the default variant for everyone, now. Beats every rule, and needs no scheduler."""

from datetime import datetime

import msgspec
import structlog

from rollout.db import audit, documents, environments, flag_states, rollouts
from rollout.db.audit import Entry
from rollout.db.outage import Crowded, Failed, passing
from rollout.db.session import Session
from rollout.delivery.publish import publish
from rollout.domain import transition
from rollout.domain.flag import Flag, FlagState
from rollout.domain.protect import KILLED
from rollout.engine.control import Control, tell
from rollout.engine.record import Cause, record
from rollout.errors import Conflict, NotFound

_log = structlog.get_logger("rollout.engine")


async def kill(control: Control, flag: str, environment: str, actor: str, reason: str) -> FlagState:
    """Serve the flag's default variant to everyone in an environment, and pause the rollout that runs on it.

    The kill is committed by itself, without the lock of any rollout, so nothing that holds one can delay it. Pausing
    comes after; should it fail, the engine's next look pauses, and the flag stays killed whatever happens.

    Raises:
        NotFound: no such flag or environment.
    """
    now = control.now()
    try:
        state = await _kill(control, flag, environment, (actor, reason), now)
    except Failed as error:
        if not passing(error):
            raise
        state = await _kill(control, flag, environment, (actor, reason), now)  # no turn of a lock is worth waiting for
    _log.warning("killed", flag=flag, environment=environment, actor=actor, reason=reason)
    await tell(control)
    try:
        async with control.database.write() as session:
            await _pause_rollout(session, flag, environment, actor, now)
    except (Failed, Crowded, Conflict):
        _log.exception("the flag is killed; its rollout could not be paused yet", flag=flag, environment=environment)
    return state


async def restore(control: Control, flag: str, environment: str, actor: str, reason: str) -> FlagState:
    """End a kill. A rollout that the kill paused exposes nobody until a person resumes it.

    Raises:
        NotFound: no such flag or environment.
    """
    now = control.now()
    async with control.database.write() as session:
        known = await _known(session, flag, environment)
        if known.killed:  # whatever kept the kill from pausing it: no exposure comes back by the restore itself
            await _pause_rollout(session, flag, environment, actor, now)
        await environments.find(session, environment, lock=True)
        known = await flag_states.find(session, flag, environment)
        state = FlagState(released=known.released)
        await flag_states.kill(session, flag, environment, state)
        await publish(session, environment, now)
        await audit.record(session, _entry("flag.restore", flag, environment, actor, now, reason))
    _log.info("restored", flag=flag, environment=environment, actor=actor, reason=reason)
    await tell(control)
    return state


async def _kill(control: Control, flag: str, environment: str, said: tuple[str, str], now: datetime) -> FlagState:
    actor, reason = said
    async with control.database.write() as session:
        await environments.find(session, environment, lock=True)
        known = await _known(session, flag, environment)
        state = msgspec.structs.replace(known, killed_at=known.killed_at or now, killed_by=actor, kill_reason=reason)
        await flag_states.kill(session, flag, environment, state)
        await publish(session, environment, now)
        await audit.record(session, _entry("flag.kill", flag, environment, actor, now, reason))
    return state


async def _known(session: Session, flag: str, environment: str) -> FlagState:
    if await documents.find(session, Flag, flag) is None:
        raise NotFound(f"there is no flag {flag!r}")
    if await environments.find(session, environment) is None:
        raise NotFound(f"there is no environment {environment!r}")
    return await flag_states.find(session, flag, environment)


async def _pause_rollout(session: Session, flag: str, environment: str, actor: str, now: datetime) -> None:
    row = await rollouts.exposed_on(session, flag, environment, lock=True)
    if row is None or row.state.withheld:
        return
    state = transition.pause(row.state, now, row.state.paused_reason or KILLED, withheld=True)
    await record(session, row, state, Cause(step="pause", reason=KILLED, actor=actor, at=now))


def _entry(action: str, flag: str, environment: str, actor: str, now: datetime, reason: str) -> Entry:
    return Entry(
        at=now, actor=actor, action=action, target=f"flag:{flag}", environment=environment, detail={"reason": reason}
    )
