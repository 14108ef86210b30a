"""Overrides: their end, what is wrong with one, and what beats what when the ruleset is compiled."""

from datetime import timedelta
from typing import Any

import pytest

from rollout.domain import transition
from rollout.domain.compile import Running, Served, compile_ruleset
from rollout.domain.flag import Flag, FlagState, Require, Targeting
from rollout.domain.override import OverrideRequest, end_of, override_problems, raises_exposure
from rollout.domain.rollout import State
from rollout_client.evaluation.answer import Evaluation
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.evaluate import compile_ruleset as compile_flags
from rollout_client.evaluation.evaluate import evaluate
from tests.core.domain.plans import START, World, at, rollout

FLAG = World.flags["answer"]


@pytest.mark.parametrize(
    ("expires", "seconds"),
    [
        ("24h", 86_400),
        ("90d", 7_776_000),
        ("1s", 1),
        ("2026-03-01T13:00:00Z", 3600),
        ("2026-03-01T14:30:00+01:00", 5400),
    ],
)
def test_an_end_is_a_duration_or_a_moment_with_its_zone(expires: str, seconds: float) -> None:
    assert end_of(expires, START) == at(seconds)


@pytest.mark.parametrize(
    ("expires", "says"),
    [
        ("soon", "is no end"), ("", "is no end"),
        ("2026-03-01T13:00:00", "with its zone"), ("2026-03-01", "with its zone"),
        ("0s", "within the next 90 days"), ("91d", "within the next 90 days"), ("20w", "within the next 90 days"),
        ("2026-03-01T12:00:00Z", "within the next 90 days"), ("2027-03-01T12:00:00Z", "within the next 90 days"),
    ],
)  # fmt: skip
def test_what_is_no_end_or_none_within_ninety_days_is_refused(expires: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        end_of(expires, START)


def problems(unit: str = "user-1", **changes: Any) -> list[str]:
    wanted = OverrideRequest(**{"variant": "v8", "reason": "a tester", "expires": "24h", **changes})
    return [problem.path for problem in override_problems(wanted, FLAG, unit, START)]


def test_every_problem_is_named_at_once() -> None:
    assert problems() == []
    assert problems(unit="a/b c@d.e") == []
    assert problems(unit="", variant="v9", reason=" ", expires="1y") == ["unit", "variant", "reason", "expires"]
    assert problems(unit="u" * 501) == ["unit"]
    assert problems(unit="a\x00b") == ["unit"]


def test_what_everybody_gets_raises_nothing() -> None:
    harmless = ("v7", None, "v7")
    assert not raises_exposure("v7", harmless)
    assert raises_exposure("v8", harmless)


def answered(unit: str, *, given: dict[str, str], flag: Flag = FLAG, killed: bool = False) -> Evaluation:
    """What a unit is answered while a rollout gives half of all the candidate."""
    document = rollout(stages=[{"name": "half", "percentage": 50, "min_units": 0}])
    running = Running(
        id="ro_1", document=document, state=transition.start(document, State(), "at_1", at(0)), metrics={}
    )
    served = Served(
        environment="production",
        flags={"answer": flag, "other": Flag(key="other", variants={"on": True, "off": False}, default_variant="off")},
        states={"answer": FlagState(killed_at=START if killed else None)},
        cohorts={},
        rollouts=[running],
        overrides={"answer": given} if given else {},
    )
    return evaluate(compile_flags(compile_ruleset(served, 1)), "answer", Context(unit))


UNITS = [f"user-{i}" for i in range(40)]


def test_an_overridden_unit_is_no_evidence_in_either_arm() -> None:
    for unit in UNITS:
        before = answered(unit, given={})
        assert before.arm in ("candidate", "baseline")
        for variant in ("v7", "v8", "off"):
            found = answered(unit, given={unit: variant})
            assert (found.variant, found.reason) == (variant, "TARGETING_MATCH")
            assert (found.rollout, found.attempt, found.arm, found.receipt) == (None, None, None, None)
        assert answered(unit, given={"somebody else": "v8"}) == before


def test_a_killed_flag_beats_an_override() -> None:
    found = answered("user-1", given={"user-1": "v8"}, killed=True)
    assert (found.variant, found.reason) == ("v7", "DISABLED")


def test_unmet_prerequisites_beat_an_override() -> None:
    needy = Flag(
        key="answer", variants=FLAG.variants, default_variant="v7",
        prerequisites=(Require(flag="other", variants=("on",)),),
    )  # fmt: skip
    assert answered("user-1", given={"user-1": "v8"}, flag=needy).variant == "v7"


def test_a_persons_override_beats_that_of_the_document_for_as_long_as_it_lasts() -> None:
    authored = Flag(
        key="answer", variants=FLAG.variants, default_variant="v7",
        targeting={"production": Targeting(overrides={"user-1": "off", "user-2": "off"})},
    )  # fmt: skip
    assert answered("user-1", given={"user-1": "v8"}, flag=authored).variant == "v8"
    assert answered("user-2", given={"user-1": "v8"}, flag=authored).variant == "off"
    assert answered("user-1", given={}, flag=authored).variant == "off"


def test_ninety_days_is_ninety_days() -> None:
    assert end_of("90d", START) - START == timedelta(days=90)
