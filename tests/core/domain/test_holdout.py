"""A holdout may take units out of running rollouts, and brings none into them."""

from typing import Any

import pytest

from rollout.domain.environment import Environment, environment_problems
from rollout.domain.flag import flag_problems
from rollout.domain.holdout import Holdout, holdout_refusal
from tests.core.domain.test_flag import flag

FIVE = Holdout(percentage=5)


@pytest.mark.parametrize(
    ("holdout", "path", "says"),
    [
        ({"percentage": 0}, "holdout.percentage", "above 0 and at most 50"),
        ({"percentage": 50.001}, "holdout.percentage", "above 0 and at most 50"),
        ({"percentage": float("nan")}, "holdout.percentage", "above 0 and at most 50"),
        ({"percentage": 0.0005}, "holdout.percentage", "the finest step is 0.001"),
        ({"percentage": 5, "salt": ""}, "holdout.salt", "leave it out"),
        ({"percentage": 5, "unit": ""}, "holdout.unit", "leave it out"),
    ],
)
def test_a_holdout_that_cannot_be_is_refused_with_the_path(holdout: dict[str, Any], path: str, says: str) -> None:
    [problem] = environment_problems(Environment(key="production", holdout=Holdout(**holdout)))
    assert problem.path == path
    assert says in problem.message


@pytest.mark.parametrize("percentage", [0.001, 5, 50])
def test_up_to_half_of_the_units_can_be_held_out(percentage: float) -> None:
    assert environment_problems(Environment(key="production", holdout=Holdout(percentage=percentage))) == []


@pytest.mark.parametrize(
    ("after", "path"),
    [
        (None, "holdout"),
        (Holdout(percentage=4.999), "holdout.percentage"),
        (Holdout(percentage=5, salt="second"), "holdout.salt"),
        (Holdout(percentage=50, salt="second"), "holdout.salt"),
        (Holdout(percentage=5, unit="company"), "holdout.unit"),
    ],
)
def test_nothing_brings_units_into_rollouts_that_are_exposed(after: Holdout | None, path: str) -> None:
    refused = holdout_refusal(FIVE, after, ["ro_1", "ro_2"])
    assert refused is not None
    assert refused.path == path
    assert "into ro_1, ro_2 that no gate has admitted" in refused.message
    assert "keep the holdout at 5 % or more" in refused.message
    assert holdout_refusal(FIVE, after, []) is None


@pytest.mark.parametrize(("before", "after"), [(None, FIVE), (FIVE, FIVE), (FIVE, Holdout(percentage=6)), (None, None)])
def test_units_may_leave_whatever_is_exposed(before: Holdout | None, after: Holdout | None) -> None:
    assert holdout_refusal(before, after, ["ro_1"]) is None


@pytest.mark.parametrize("salt", ["holdout/holdout", "exclusion/checkout"])
def test_no_flag_draws_its_arms_from_the_buckets_of_a_slice(salt: str) -> None:
    assert [problem.path for problem in flag_problems(flag(salt=salt))] == ["salt"]
    assert flag_problems(flag(key="holdout")) == []
    assert flag_problems(flag(salt="holdout")) == []
