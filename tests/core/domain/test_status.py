"""What status says in the statuses that people misread most."""

import msgspec

from rollout.domain import transition
from rollout.domain.holdout import Holdout
from rollout.domain.rollout import State
from rollout.domain.status import Around, RolloutStatus, status_of
from tests.core.domain.plans import at, rollout

STAGES = [{"name": "pilot", "cohort": "staff", "percentage": 100}, {"name": "canary", "percentage": 10}]
PLAN = rollout(stages=STAGES)


def status(state: State, *, killed: bool = False) -> RolloutStatus:
    return status_of(("ro_1", 1), PLAN, state, None, Around(killed=killed, now=at(60)))


def test_a_cohorts_percentage_is_said_to_be_the_cohorts() -> None:
    running = transition.start(PLAN, State(), "at_1", at(0))
    assert (status(running).percentage, status(running).cohort) == (100, "staff")
    following = status(running).next_change
    assert following is not None
    assert (following.to, following.percentage, following.not_before) == ("canary", 10, at(600))
    opened = transition.advance(PLAN, running, "at_2", at(700), proven=True)
    assert (status(opened).percentage, status(opened).cohort) == (10, None)
    assert not status(opened).proven, "a whole cohort has no control, so its stage proved nothing"


def test_a_killed_flag_serves_the_candidate_to_nobody_whatever_the_rollout_says() -> None:
    completed = transition.complete(PLAN, transition.start(PLAN, State(), "at_1", at(0)), at(9), proven=False)
    assert status(completed).percentage == 100
    assert status(completed, killed=True).percentage == 0


def test_what_a_kill_withheld_is_the_first_thing_it_says() -> None:
    running = transition.start(PLAN, State(), "at_1", at(0))
    killed = transition.pause(running, at(5), "the flag was killed", withheld=True)
    assert [reason.code for reason in status(killed).held] == ["withheld"]
    assert status(killed).percentage == 0
    assert status(killed).next_change is None


def test_a_blind_rollout_says_so() -> None:
    running = transition.start(PLAN, State(), "at_1", at(0))
    blind = transition.lapse(running, at(60))
    assert (status(blind).held[0].code, status(blind).percentage) == ("blind", 0)
    assert msgspec.json.encode(status(blind))


def test_a_holdout_and_a_group_leave_a_part_of_the_units_until_the_end() -> None:
    grouped = rollout(stages=STAGES, exclusion={"group": "pages", "share": 30})
    running = transition.start(grouped, State(), "at_1", at(0))
    for holdout, reach in ((None, 30.0), (Holdout(percentage=5), 28.5)):
        found = status_of(("ro_1", 1), grouped, running, None, Around(killed=False, now=at(60), holdout=holdout))
        assert (found.reach, found.group, found.percentage) == (reach, "pages", 100)
    ended = transition.complete(grouped, running, at(9), proven=True)
    around = Around(killed=False, now=at(60), holdout=Holdout(percentage=5))
    assert status_of(("ro_1", 1), grouped, ended, None, around).reach == 100
    assert (status(running).reach, status(running).group) == (100, None)
