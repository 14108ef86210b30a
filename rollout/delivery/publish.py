"""Compile and keep the next ruleset, in the transaction of the change that asked for it: recorded is served."""

import secrets
from collections.abc import Iterable
from datetime import datetime

import msgspec

from rollout.db import documents, environments, flag_states, notices, overrides, rollouts
from rollout.db.notices import Notice
from rollout.db.session import Session
from rollout.domain.cohort import Cohort
from rollout.domain.compile import Served, compile_ruleset
from rollout.domain.flag import Flag
from rollout.domain.override import Override
from rollout_client.evaluation import lines
from rollout_client.evaluation.ruleset import Ruleset


async def publish(session: Session, environment: str, now: datetime, forgotten: Iterable[Override] = ()) -> int:
    """The revision that serves what this transaction decided: a new one, or the newest if nothing differs.

    Takes the environment's row lock, so two publishers of one environment follow each other. `forgotten` are overrides
    that this transaction has ended: units are personal data, and the rulesets that are kept forget whom they named.
    """
    revision, edition = await environments.next_revision(session, environment)
    newest = await environments.ruleset(session, environment)
    compiled = compile_ruleset(await gathered(session, environment, now), revision - 1, edition)
    if newest == lines.encode(compiled):
        await environments.set_revision(session, environment, revision - 1)
        return revision - 1
    ruleset = msgspec.structs.replace(compiled, revision=revision, edition=secrets.token_hex(6))
    await environments.keep_ruleset(session, ruleset, now)
    named = [*await overrides.of_environment(session, environment), *forgotten]
    if newest is not None and named:
        await environments.rewrite_ruleset(session, without_units(lines.decode(newest), named))
    await notices.tell(session, Notice("ruleset", f"{environment}/{revision}.{ruleset.edition}"))
    return revision


def without_units(ruleset: Ruleset, named: Iterable[Override]) -> Ruleset:
    """A ruleset that is served no more, without the units that people gave variants to."""
    flags = dict(ruleset.flags)
    for each in named:
        flag = flags.get(each.flag)
        if flag is not None and each.unit in flag.overrides:
            kept = {unit: variant for unit, variant in flag.overrides.items() if unit != each.unit}
            flags[each.flag] = msgspec.structs.replace(flag, overrides=kept)
    return msgspec.structs.replace(ruleset, flags=flags)


async def gathered(session: Session, environment: str, now: datetime) -> Served:
    """Everything the environment serves as this transaction sees it, uncompiled; what has expired is not served."""
    authored = await environments.find(session, environment)
    lasting: dict[str, dict[str, str]] = {}
    for each in await overrides.of_environment(session, environment):
        if each.expires_at > now:
            lasting.setdefault(each.flag, {})[each.unit] = each.variant
    return Served(
        environment=environment,
        flags={key: flag for key, (flag, _) in (await documents.every(session, Flag)).items()},
        states=await flag_states.of_environment(session, environment),
        cohorts={key: cohort for key, (cohort, _) in (await documents.every(session, Cohort)).items()},
        rollouts=await rollouts.served(session, environment),
        overrides=lasting,
        holdout=authored.holdout if authored is not None else None,
    )


async def publish_everywhere(session: Session, now: datetime) -> dict[str, int]:
    """Publish every environment: what a change of a flag or a cohort asks for."""
    return {key: await publish(session, key, now) for key in sorted(await environments.every(session))}
