"""Merging e-values over start times and guardrails, and naming culprits."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.stats.combine import e_bh, log_late_start, log_weighted_mean, start_weights

logs = st.floats(-50.0, 50.0)


@given(st.integers(1, 30))
def test_half_of_the_weight_watches_from_the_start(stages: int) -> None:
    weights = start_weights(stages)
    assert len(weights) == stages
    assert sum(weights) == pytest.approx(1.0)
    assert weights[0] == (1.0 if stages == 1 else 0.5)
    assert len(set(weights[1:])) <= 1


def test_a_rollout_without_stages_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one stage"):
        start_weights(0)


def test_processes_that_have_not_started_count_one() -> None:
    assert log_late_start([], 3) == pytest.approx(0.0, abs=1e-12)
    assert log_late_start([math.log(9.0)], 3) == pytest.approx(math.log(0.5 * 9.0 + 0.5))
    assert log_late_start([0.0, math.log(9.0)], 3) == pytest.approx(math.log(0.5 + 0.25 * 9.0 + 0.25))
    assert log_late_start([2.5], 1) == pytest.approx(2.5)


def test_more_processes_than_stages_are_refused() -> None:
    with pytest.raises(ValueError, match="3 processes have started in a rollout of 2 stages"):
        log_late_start([0.0, 0.0, 0.0], 2)


@given(st.lists(logs, min_size=1, max_size=6), st.integers(0, 3))
def test_harm_that_starts_late_costs_at_most_its_weight(log_es: list[float], later: int) -> None:
    stages = len(log_es) + later
    combined = log_late_start(log_es, stages)
    for log_e, weight in zip(log_es, start_weights(stages), strict=False):
        assert combined >= log_e + math.log(weight) - 1e-9


@given(st.lists(st.tuples(logs, st.floats(0.1, 10.0)), min_size=1, max_size=8))
def test_the_mean_lies_between_bonferroni_and_the_largest(pairs: list[tuple[float, float]]) -> None:
    log_es, weights = zip(*pairs, strict=True)
    value = log_weighted_mean(log_es, weights)
    shares = [weight / sum(weights) for weight in weights]
    assert value <= max(log_es) + 1e-9
    assert value >= max(e + math.log(share) for e, share in zip(log_es, shares, strict=True)) - 1e-9


def test_only_the_proportions_of_weights_matter() -> None:
    assert log_weighted_mean([1.0, 3.0], [1, 3]) == pytest.approx(log_weighted_mean([1.0, 3.0], [0.25, 0.75]))


@pytest.mark.parametrize(("log_es", "weights"), [([], []), ([1.0], [1.0, 1.0]), ([1.0], [0.0]), ([1.0], [math.nan])])
def test_a_mean_of_nothing_or_with_odd_weights_is_refused(log_es: list[float], weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weight"):
        log_weighted_mean(log_es, weights)


def test_culprits_are_named_by_the_step_up_rule() -> None:
    e = [math.log(value) for value in (39.0, 1.0, 300.0, 70.0)]
    # K / (alpha k) at alpha 0.05: 80, 40, 26.7, 20; the third largest, 39, is above 26.7.
    assert e_bh(e, 0.05) == (0, 2, 3)
    assert e_bh(e, 0.01) == ()


def test_no_culprit_may_be_named() -> None:
    assert e_bh([0.0, 1.0], 0.05) == ()
    assert e_bh([], 0.05) == ()


@given(st.lists(logs, max_size=8), st.floats(0.001, 0.5))
def test_every_culprit_has_more_evidence_than_every_other(log_es: list[float], alpha: float) -> None:
    named = e_bh(log_es, alpha)
    assert list(named) == sorted(set(named))
    others = [log_e for index, log_e in enumerate(log_es) if index not in named]
    assert all(log_es[index] >= other for index in named for other in others)
    # One guardrail alone beyond Bonferroni's line is always named.
    line = math.log(len(log_es) / alpha) if log_es else 0.0
    assert all(index in named for index, log_e in enumerate(log_es) if log_e >= line)


def test_alpha_is_a_probability() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        e_bh([1.0], 1.0)
