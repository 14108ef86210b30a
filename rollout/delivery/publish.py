"""Compile and keep the next ruleset, in the transaction of the change that asked for it: recorded is served."""

import secrets
from datetime import datetime

import msgspec

from rollout.db import documents, environments, flag_states, rollouts
from rollout.db.session import Session
from rollout.domain.cohort import Cohort
from rollout.domain.compile import Served, compile_ruleset
from rollout.domain.flag import Flag
from rollout_client.evaluation import lines


async def publish(session: Session, environment: str, now: datetime) -> int:
    """The revision that serves what this transaction decided: a new one, or the newest if nothing differs.

    Takes the environment's row lock, so two publishers of one environment follow each other.
    """
    revision, edition = await environments.next_revision(session, environment)
    newest = await environments.ruleset(session, environment)
    compiled = compile_ruleset(await gathered(session, environment), revision - 1, edition)
    if newest == lines.encode(compiled):
        await environments.set_revision(session, environment, revision - 1)
        return revision - 1
    named = msgspec.structs.replace(compiled, revision=revision, edition=secrets.token_hex(6))
    await environments.keep_ruleset(session, named, now)
    return revision


async def gathered(session: Session, environment: str) -> Served:
    """Everything the environment serves as this transaction sees it, uncompiled."""
    return Served(
        environment=environment,
        flags={key: flag for key, (flag, _) in (await documents.every(session, Flag)).items()},
        states=await flag_states.of_environment(session, environment),
        cohorts={key: cohort for key, (cohort, _) in (await documents.every(session, Cohort)).items()},
        rollouts=await rollouts.served(session, environment),
    )


async def publish_everywhere(session: Session, now: datetime) -> dict[str, int]:
    """Publish every environment: what a change of a flag or a cohort asks for."""
    return {key: await publish(session, key, now) for key in sorted(await environments.every(session))}
