"""Breaking the product on purpose, one fault at a time, to see that the machine finds each of them.

    python -m tests.shell.engine.machine.faults [NAME ...] [--steps 3000]

It prints a line for each fault: after how many steps it was found and by which law, or that it was not. The last line
counts; the exit status is 1 when one got through. On SQLite, some ten minutes in all.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rollout.db import heartbeat, rollouts
from rollout.delivery import publish as publishing
from rollout.domain import decide, progress, transition
from rollout.domain.exclusion import Range
from rollout.domain.rollout import State
from rollout.engine import carry_out, commands, drafting, look, neighbours, record, rights, switch, watchman
from tests.shell.engine.machine.run import machine_on, walk

STEPS = 3000
Patch = pytest.MonkeyPatch
FAULTS: dict[str, Callable[[Patch], None]] = {}


def fault(break_it: Callable[[Patch], None]) -> Callable[[Patch], None]:
    """Enter a way to break the product under the name of its function."""
    FAULTS[break_it.__name__] = break_it
    return break_it


@fault
def compares_no_revision(patch: Patch) -> None:
    """Acts on a rollout that has moved since it was seen."""
    real = commands.locked

    async def locked(session: Any, identifier: str, _: int | None) -> Any:
        return await real(session, identifier, None)

    patch.setattr(commands, "locked", locked)
    patch.setattr(drafting, "locked", locked)


@fault
def publishes_afterwards(patch: Patch) -> None:
    """Publishes in a transaction of its own, after that of the change: a crash in between leaves it unserved."""

    async def nothing(*_: object) -> None:
        return None

    async def tell(control: Any) -> None:
        async with control.database.write() as session:
            await publishing.publish_everywhere(session, control.now())
        await control.hub.refresh()

    patch.setattr(record, "publish", nothing)
    patch.setattr(commands, "tell", tell)
    patch.setattr(watchman, "tell", tell)


@fault
def kill_withholds_nothing(patch: Patch) -> None:
    """A kill pauses, and the restore gives back what the kill took."""
    real = transition.pause

    def pause(*args: Any, withheld: bool = False) -> State:
        return real(*args)

    patch.setattr(transition, "pause", pause)
    assert switch.transition is transition


@fault
def breach_is_forgotten(patch: Patch) -> None:
    """The next look undoes a latched breach."""

    def after_look(*args: Any) -> State:
        return msgspec.structs.replace(decide.after_look(*args), breach=None)

    patch.setattr(look, "after_look", after_look)


@fault
def two_stages_at_once(patch: Patch) -> None:
    """An advance skips a stage where there is one."""
    real = transition.advance

    def advance(plan: Any, state: State, *args: Any, **rest: Any) -> State:
        skips = state.stage + 2 < len(plan.stages)
        return real(plan, msgspec.structs.replace(state, stage=state.stage + skips), *args, **rest)

    patch.setattr(transition, "advance", advance)


@fault
def min_units_are_ignored(patch: Patch) -> None:
    """A gate opens however few units came."""
    patch.setattr(progress, "_units", lambda _: ())


@fault
def undecided_is_a_pass(patch: Patch) -> None:
    """A guardrail that has proven nothing yet opens the gate."""
    real = progress._closes_gate
    patch.setattr(progress, "_closes_gate", lambda each: each.verdict != "undecided" and real(each))


@fault
def author_may_approve(patch: Patch) -> None:
    """Nobody is the author of anything."""
    patch.setattr(rights.Actor, "wrote", lambda *_: False)


@fault
def vouches_without_a_look(patch: Patch) -> None:
    """The beat of the engine goes on, and nobody looks."""

    async def looked(*_: object, **__: object) -> int:
        return 0

    async def vouch(_: Any, session: Any, began_ms: int) -> None:
        await heartbeat.beat(session, began_ms)

    patch.setattr(watchman.Watchman, "_look_at_all", looked)
    patch.setattr(watchman.Watchman, "_vouch", vouch)


@fault
def quiet_for_ever(patch: Patch) -> None:
    """After a look that holds, only evidence and people make the engine look again."""
    patch.setattr(look, "quiet_until", lambda *args: args[-1] + timedelta(days=100))


@fault
def waiver_never_ends(patch: Patch) -> None:
    """What a person answered for until a moment stays waived."""

    def waived(self: State, _: datetime) -> frozenset[str]:
        return frozenset(each.metric for each in self.waivers if each.stage == self.stage)

    patch.setattr(State, "waived", waived)


@fault
def spent_budget_withholds_nothing(patch: Patch) -> None:
    """A pause for a spent budget leaves the exposure, which goes on spending."""
    patch.setattr(carry_out, "WITHHOLDS", frozenset({"killed"}))


@fault
def observed_rollouts_move(patch: Patch) -> None:
    """`mode: observe` is taken for `enforce`."""
    patch.setattr(carry_out, "as_carried_out", lambda _, decision: decision)
    patch.setattr(look, "as_carried_out", lambda _, decision: decision)


@fault
def groups_overlap(patch: Patch) -> None:
    """Every rollout of a group is given the first buckets."""
    patch.setattr(neighbours, "first_fit", lambda _, width: Range(start=0, end=width))


@fault
def step_back_goes_up(patch: Patch) -> None:
    """A rollback in steps begins with a step in the wrong direction."""
    real = transition.step_back

    def step_back(plan: Any, state: State, *args: Any) -> State:
        up = state.stage + 1 < len(plan.stages)
        return real(plan, msgspec.structs.replace(state, stage=state.stage + 2 * up), *args)

    patch.setattr(transition, "step_back", step_back)


@fault
def regains_while_blind(patch: Patch) -> None:
    """The exposure comes back although its source fails still."""
    patch.setattr(look, "still_blind", lambda *_: False)


@fault
def starts_before_its_time(patch: Patch) -> None:
    """A scheduled rollout starts at the first look."""
    real = transition.schedule
    patch.setattr(transition, "schedule", lambda state, _: real(state, datetime.fromisoformat("2020-01-01T00:00:00Z")))


@fault
def overrides_are_not_published(patch: Patch) -> None:
    """An override that a person gave is left out of the ruleset."""
    real = publishing.gathered

    async def gathered(*args: Any) -> Any:
        return msgspec.structs.replace(await real(*args), overrides={})

    patch.setattr(publishing, "gathered", gathered)


@fault
def state_moves_unrecorded(patch: Patch) -> None:
    """A calibration is stored without its transition."""
    real = rollouts.add_transition

    async def add(session: Any, rollout: str, step: Any) -> None:
        if step.change.step != "calibrate":
            await real(session, rollout, step)

    patch.setattr(rollouts, "add_transition", add)


def found_by(name: str, steps: int) -> str | None:
    """Break the product in one way and take so many steps; where it was found and what was said, None if it was not."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        url = f"sqlite+aiosqlite:///{Path(folder) / 'rampline.db'}"
        with machine_on(url, patch) as machine:
            FAULTS[name](patch)
            try:
                walk(machine, steps, 0)
            except Exception as raised:
                error = raised
                while isinstance(error, ExceptionGroup):  # it broke a law in one run and not in the next
                    error = error.exceptions[0]
                said = str(error).partition("\n")[0]
                return f"after {machine.steps_taken} steps: {type(error).__name__}: {said[:110]}"
    return None


def main() -> int:
    """Run the faults that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FAULTS))
    parser.add_argument("--steps", type=int, default=STEPS)
    asked = parser.parse_args()
    names = asked.names or list(FAULTS)
    found = 0
    for name in names:
        said = found_by(name, asked.steps)
        found += said is not None
        print(f"{name:32} {said or 'NOT FOUND'}", flush=True)
    print(f"{found} of {len(names)} faults found")
    return 0 if found == len(names) else 1


if __name__ == "__main__":
    sys.exit(main())
