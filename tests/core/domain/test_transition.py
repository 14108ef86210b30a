"""What each step leaves behind: clocks, attempts, epochs."""

import msgspec

from rollout.domain import transition
from rollout.domain.plan import percentage_of
from rollout.domain.rollout import ALLOWED, ENDED, EXPOSED, Breach, State, percentage_now, refusal
from rollout_client.evaluation.ruleset import Frozen
from tests.core.domain.plans import at, rollout

PLAN = rollout(bake={"duration": "1h", "holdback": 2})


def started() -> State:
    return transition.start(PLAN, State(), "at_1", at(0))


def age(state: State, seconds: float) -> float:
    return state.stage_age(at(seconds)).total_seconds()


def test_time_spent_paused_or_blind_does_not_count() -> None:
    paused = transition.pause(started(), at(100), "lunch")
    assert age(paused, 5000) == 100
    resumed = transition.resume(PLAN, paused, "at_2", at(5000), alarmed=False)
    assert age(resumed, 5060) == 160
    blind = transition.lapse(resumed, at(5060))
    assert age(blind, 90_000) == 160
    seeing = transition.regain(PLAN, blind, "at_3", at(90_000))
    assert age(seeing, 90_010) == 170
    assert (percentage_now(PLAN, blind), percentage_now(PLAN, seeing)) == (0, 10)


def test_what_a_kill_withholds_only_a_person_gives_back() -> None:
    killed = transition.pause(started(), at(100), "the flag was killed", withheld=True)
    assert percentage_now(PLAN, killed) == 0
    seeing = transition.regain(PLAN, transition.lapse(killed, at(200)), "at_2", at(300))
    assert percentage_now(PLAN, seeing) == 0
    assert percentage_now(PLAN, transition.resume(PLAN, seeing, "at_3", at(400), alarmed=False)) == 10


def test_a_lapse_of_a_paused_rollout_leaves_it_paused() -> None:
    paused = transition.pause(started(), at(100), "lunch")
    seeing = transition.regain(PLAN, transition.lapse(paused, at(200)), "at_2", at(300))
    assert (seeing.status, seeing.paused_reason, age(seeing, 900)) == ("paused", "lunch", 100)


def test_every_stay_is_an_attempt_of_its_own_and_only_an_alarm_starts_an_epoch() -> None:
    state = transition.resume(PLAN, transition.pause(started(), at(1), "lunch"), "at_2", at(2), alarmed=False)
    assert [(a.id, a.number, a.stage, a.epoch) for a in state.attempts] == [("at_1", 1, 0, 1), ("at_2", 2, 0, 1)]
    breach = Breach(at=at(3), epoch=1, metric="error_rate", log_e=5, threshold=4.6)
    state = transition.resume(PLAN, transition.pause(state, at(3), "breach", breach), "at_3", at(4), alarmed=False)
    assert (state.epoch, state.breach) == (2, None)
    state = transition.resume(PLAN, transition.pause(state, at(5), "srm"), "at_4", at(6), alarmed=True)
    assert state.epoch == 3


def test_what_is_frozen_never_changes_and_stays_for_the_life_of_the_rollout() -> None:
    first, other = Frozen(thresholds=(200.0,)), Frozen(thresholds=(900.0,), cap=5.0)
    state = transition.calibrate(started(), {"latency_ms": first})
    state = transition.calibrate(state, {"latency_ms": other, "cost": other})
    assert state.frozen == {"latency_ms": first, "cost": other}
    assert msgspec.structs.replace(state, frozen={}) == started(), "nothing else changes"
    breach = Breach(at=at(3), epoch=1, metric="error_rate", log_e=5, threshold=4.6)
    later = transition.resume(PLAN, transition.pause(state, at(1), "breach", breach), "at_2", at(2), alarmed=False)
    later = transition.regain(PLAN, transition.lapse(later, at(3)), "at_3", at(4))
    later = transition.advance(PLAN, later, "at_4", at(5), proven=True)
    assert (later.epoch, later.frozen, transition.roll_back(later, at(6)).frozen) == (2, state.frozen, state.frozen)


def test_exposure_goes_stage_by_stage_to_the_bake_and_to_everyone() -> None:
    state, seen = started(), []
    while state.status not in ENDED:
        seen.append((state.status, percentage_now(PLAN, state)))
        following = transition.complete(PLAN, state, at(9), proven=True) if state.status == "baking" else None
        state = following or transition.advance(PLAN, state, "at_n", at(9), proven=True)
    assert seen == [("running", 10), ("running", 50), ("baking", 98)]
    assert (state.status, percentage_now(PLAN, state), percentage_of(PLAN, 2)) == ("completed", 100, 98)


def test_what_the_table_does_not_allow_is_refused_with_what_to_do() -> None:
    for action, allowed in ALLOWED.items():
        for status in (*EXPOSED, *ENDED, "draft", "scheduled"):
            said = refusal(action, status)
            assert (said is None) == (status in allowed)
            assert said is None or len(said) > 20
