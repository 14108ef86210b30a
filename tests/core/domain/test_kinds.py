"""What each kind of metric counts, when it is bet, what it freezes, and what it keeps."""

import math
import zlib
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.domain.cells import NO_CELLS, Cells
from rollout.domain.evidence import ARMS, Arms, ArmSums, Evidence, GuardrailEvidence, Increments
from rollout_client.evaluation.evidence import ArmIncrement, MetricIncrement, SlotIncrement
from tests.core.domain.observed import (
    KINDS,
    MINUTE,
    VALUES,
    Seen,
    Watched,
    attempt,
    calibrated,
    joined,
    mine,
    seen,
    value_of,
    watched,
)

EVERY = tuple(KINDS)


def again(evidence: Evidence) -> Evidence:
    return msgspec.json.decode(msgspec.json.encode(evidence), type=Evidence)


@pytest.mark.parametrize("kind", VALUES)
def test_nothing_is_bet_before_the_baseline_has_been_seen_long_enough(kind: str) -> None:
    world, needed = watched(kind), 50 if kind == "mean_of_scores" else 500
    rising = [place % 16 for place in range(needed - 1)]
    both = seen(kind, "candidate", [15] * 900) + seen(kind, "baseline", rising)
    evidence = world.take(Evidence(), world.batch(both))
    assert world.kind.awaits(mine(evidence)) == 1
    found = world.judge(evidence).readings[0]
    assert (found.verdict, found.awaits, found.log_e_harm) == ("insufficient", 1, 0.0)
    evidence = world.take(evidence, world.batch(seen(kind, "baseline", [3])), 2)
    assert world.kind.awaits(mine(evidence)) == 0
    assert (mine(evidence).harm, mine(evidence).staked) == ({}, {}), "what calibrates is no evidence"
    assert mine(evidence).carried == {}
    assert world.judge(evidence, 2).readings[0].verdict == "undecided"


@pytest.mark.parametrize("kind", VALUES)
def test_what_is_frozen_is_frozen_once_and_outlives_the_epoch(kind: str) -> None:
    world = watched(kind)
    evidence = calibrated(world, kind)
    calibration, frozen = mine(evidence).calibration, mine(evidence).frozen
    assert calibration is not None
    assert frozen is not None
    arms = [seen(kind, "candidate", [14] * 200), seen(kind, "baseline", [12] * 900)]
    evidence = world.take(evidence, world.batch(arms[0] + arms[1], frozen), 2)
    learned = dict(mine(evidence).histogram)
    world.attempts = (*world.attempts, attempt("at_2", epoch=2))
    evidence = world.take(evidence, {}, 3)
    assert (mine(evidence).calibration, mine(evidence).frozen) == (calibration, frozen)
    assert mine(evidence).histogram == learned
    assert (mine(evidence).harm, mine(evidence).past, mine(evidence).totals) == ({}, {}, {}), "wealth does not"


@pytest.mark.parametrize("kind", VALUES)
def test_clients_are_told_every_threshold_once_from_mild_to_extreme(kind: str) -> None:
    world = watched(kind)
    frozen, calibration = mine(calibrated(world, kind)).frozen, mine(calibrated(world, kind)).calibration
    assert frozen is not None
    assert calibration is not None
    named = {
        "mean": {*calibration.ladder, calibration.gate},
        "mean_of_scores": set(),
        "quantile": {*calibration.ladder, calibration.gate},
    }.get(kind, {*calibration.body, *calibration.ladder, calibration.gate})
    assert set(frozen.thresholds) == named
    assert list(frozen.thresholds) == sorted(named)
    assert frozen.cap == (None if kind == "quantile" else 5.0 if kind == "mean_of_scores" else calibration.cap)


def test_thresholds_of_what_should_be_high_go_down() -> None:
    world = Watched(
        {"kind": "distribution", "direction": "higher_is_better"}, {"max_regression": {"relative": 0.2}, "focus": "p5"}
    )
    evidence = world.take(Evidence(), world.batch(Seen("baseline", i % 256, 1.0 + i / 10) for i in range(600)))
    frozen = mine(evidence).frozen
    assert frozen is not None
    assert list(frozen.thresholds) == sorted(frozen.thresholds, reverse=True)
    assert len(frozen.thresholds) >= 6


@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_keeps_what_is_judged_and_no_more_of_what_the_wire_brings(kind: str) -> None:
    world = watched(kind)
    evidence = calibrated(world, kind)
    batch = world.batch(seen(kind, "candidate", range(16)), mine(evidence).frozen)
    folded = world.kind.fold(mine(evidence), batch["at_1"]["candidate"].slots[MINUTE].metrics["m"])
    assert len(folded.cells.rows) == (2 if kind == "ratio" else 1 + world.kind.scores)


@pytest.mark.parametrize("kind", VALUES)
def test_short_and_long_cells_merge_and_only_what_was_measured_is_in_the_cells(kind: str) -> None:
    world = watched(kind)
    evidence = calibrated(world, kind)
    frozen = mine(evidence).frozen
    short, long = seen(kind, "candidate", range(16)), seen(kind, "candidate", [1, 9, 15, 15])
    both = joined([world.batch(short), world.batch(long, frozen)])
    folded = world.kind.fold(mine(evidence), both["at_1"]["candidate"].slots[MINUTE].metrics["m"])
    assert folded.totals[0] == 20 == sum(folded.histogram.values()) == world.kind.amount(folded)
    alone = world.kind.fold(mine(evidence), world.batch(long, frozen)["at_1"]["candidate"].slots[MINUTE].metrics["m"])
    assert folded.cells == alone.cells
    assert folded.squares == alone.squares
    assert folded.cells.total(0) == 4
    assert len(folded.cells.rows) == 1 + world.kind.scores
    shown = world.kind.fold(mine(evidence), world.batch(short)["at_1"]["candidate"].slots[MINUTE].metrics["m"])
    assert (shown.cells, shown.squares) == (NO_CELLS, [])


@pytest.mark.parametrize("kind", ["mean", "quantile", "distribution", "tail"])
def test_scores_of_a_cell_count_the_thresholds_its_values_are_beyond(kind: str) -> None:
    world = watched(kind)
    evidence = calibrated(world, kind)
    calibration, frozen = mine(evidence).calibration, mine(evidence).frozen
    assert calibration is not None
    values = [0.0, 0.5, 700.0, 4096.0, 9000.0]
    batch = world.batch([Seen("candidate", 9, value) for value in values], frozen)
    folded = world.kind.fold(mine(evidence), batch["at_1"]["candidate"].slots[MINUTE].metrics["m"])
    numbers = folded.cells.table[:, 9].tolist()
    families = {"quantile": ["ladder"], "mean": ["ladder"]}.get(kind, ["body", "ladder"])
    ranks = {
        name: [len({t for t in getattr(calibration, name) if value >= t}) for value in values] for name in families
    }
    expected = [sum(rank) for rank in ranks.values()] + [sum(value >= calibration.gate for value in values)]
    assert numbers[-len(expected) :] == expected
    squares = [sum(r * r for r in rank) for rank in ranks.values()] + [expected[-1]]
    assert folded.squares[-len(squares) :] == squares


@pytest.mark.parametrize("kind", EVERY)
def test_a_batch_with_one_arm_only_is_carried_and_bet_with_the_next(kind: str) -> None:
    if kind == "ratio":
        pytest.skip("judged from the sums of a stage, not batch by batch")
    world = watched(kind)
    first = seen(kind, "candidate", [15, 14, 3, 9])
    second = seen(kind, "baseline", [2] * 40 + [15])
    evidence = calibrated(world, kind) if kind in VALUES else Evidence()
    frozen = mine(evidence).frozen if kind in VALUES else None
    split = world.take(again(evidence), world.batch(first, frozen), 2)
    assert mine(split).harm == {}
    assert world.kind.amount(mine(split).carried["at_1"].candidate) > 0
    split = world.take(again(split), world.batch(second, frozen), 3)
    whole = world.take(again(evidence), world.batch(first + second, frozen), 3)
    assert mine(split).carried == {}
    assert mine(split).harm == mine(whole).harm
    assert any(mine(split).harm[0])
    assert mine(split).gate == mine(whole).gate


@pytest.mark.parametrize("kind", EVERY)
def test_late_data_of_a_former_attempt_are_harm_under_its_stage_and_never_in_the_present_gate(kind: str) -> None:
    world = watched(kind)
    evidence = calibrated(world, kind) if kind in VALUES else Evidence()
    frozen = mine(evidence).frozen if kind in VALUES else None
    both = seen(kind, "candidate", range(16)) + seen(kind, "baseline", range(16))
    late = world.batch(both, frozen)
    world.attempts = (attempt("at_1"), attempt("at_2", stage=1))
    evidence = world.take(evidence, late, 2)
    own = mine(evidence)
    assert own.gate_attempt == "at_2"
    assert own.gate == [0.0] * sum(weights.size for weights in world.kind.gate_weights)
    assert "at_2" not in own.cells
    if kind != "ratio":
        assert set(own.harm) == {0}
    assert set(own.past) <= set(ARMS)
    judged = world.judge(evidence, 2).readings[0]
    assert judged.log_e_gate == 0.0
    assert judged.candidate.n == 0


@pytest.mark.parametrize("kind", EVERY)
def test_the_baseline_of_a_batch_teaches_only_the_next_one(kind: str) -> None:
    if kind == "ratio":
        pytest.skip("it has no guess")
    world = watched(kind)
    evidence = calibrated(world, kind) if kind in VALUES else Evidence()
    before = (mine(evidence).history, dict(mine(evidence).histogram)) if "m" in evidence.metrics else (None, {})
    batch = seen(kind, "candidate", range(16)) + seen(kind, "baseline", [15] * 100)
    evidence = world.take(evidence, world.batch(batch), 2)
    assert (mine(evidence).history, mine(evidence).histogram) != before
    own = mine(evidence)
    taught = GuardrailEvidence(histogram=before[1], history=before[0], calibration=own.calibration, frozen=own.frozen)
    arms = msgspec.json.decode(msgspec.json.encode(world.batch(batch)["at_1"]), type=dict[str, ArmIncrement])
    folded = {arm: world.kind.fold(taught, arms[arm].slots[MINUTE].metrics["m"]) for arm in ARMS}
    factors = world.kind.bet(taught, Arms(candidate=folded["candidate"], baseline=folded["baseline"]), None)
    np.testing.assert_allclose(own.harm[0], factors.harm, atol=1e-6)


def test_counts_per_exposure_have_the_exposures_of_the_minute_as_their_exposure() -> None:
    world = Watched(
        {"kind": "count_rate", "denominator": "exposure", "maturity": "2m"}, {"max_regression": {"relative": 0.5}}
    )
    minute = SlotIncrement(exposures={1: 5, 2: 3}, metrics={"m": MetricIncrement(cells={1: [9.0, 4.0], 7: [1.0, 1.0]})})
    folded = world.kind.mature(GuardrailEvidence(), minute)
    assert folded == ArmSums(cells=Cells.of({1: (5, 4.0), 2: (3, 0.0)}, whole=False), totals=[8, 4.0])


@pytest.mark.parametrize("kind", ["mean", "quantile", "distribution", "count_rate", "ratio"])
def test_a_slow_metric_is_bet_by_the_minute_with_what_came_in_time(kind: str) -> None:
    metric, guardrail = KINDS[kind]
    world = Watched({**metric, "maturity": "2m"}, guardrail)
    numbers = [place % 16 for place in range(600)]
    evidence = world.take(Evidence(), world.batch(seen(kind, "baseline", numbers)), 10)
    assert mine(evidence).histogram == {}
    later = seen(kind, "candidate", range(16)) + seen(kind, "baseline", range(16))
    evidence = world.take(evidence, world.batch(later, None, MINUTE + 1), 100)
    evidence = world.take(evidence, {}, 180)
    assert mine(evidence).totals["at_1"].get("candidate", []) in ([], [0, 0])
    evidence = world.take(evidence, {}, 240)
    assert mine(evidence).totals["at_1"]["candidate"][0] > 0
    assert evidence.open_slots == {}
    before = mine(evidence).harm
    evidence = world.take(evidence, world.batch(later, None, MINUTE), 300)
    assert mine(evidence).harm == before
    assert mine(evidence).late > 0


def test_events_may_arrive_before_their_exposure() -> None:
    world = watched("count_rate")
    early = [Seen("candidate", 3, (5, 0)), Seen("baseline", 3, (1, 0))]
    evidence = world.take(Evidence(), world.batch(early))
    assert mine(evidence).harm == {}
    assert math.isfinite(world.judge(evidence).readings[0].log_e_harm)
    exposed = [Seen("candidate", 3, (0, 10)), Seen("baseline", 4, (0, 90))]
    evidence = world.take(evidence, world.batch(exposed), 2)
    together = watched("count_rate")
    whole = together.take(Evidence(), together.batch(early + exposed), 2)
    assert mine(evidence).harm == mine(whole).harm
    assert math.isfinite(world.judge(evidence, 2).readings[0].design_effect)


@pytest.mark.parametrize("kind", ["mean", "quantile", "distribution", "tail"])
@pytest.mark.parametrize("past", [[0.0], [1e12], [3.0], [0.0] * 299 + [2.0]])
@pytest.mark.parametrize("now", [[0.0], [1e12], [3.0]])
def test_a_baseline_of_one_value_is_judged_in_numbers(kind: str, past: list[float], now: list[float]) -> None:
    world = watched(kind)
    evidence = world.take(Evidence(), world.batch(Seen("baseline", i % 256, past[i % len(past)]) for i in range(600)))
    frozen = mine(evidence).frozen
    for step in range(3):
        arms = [Seen("candidate", i, now[0]) for i in range(40)] + [Seen("baseline", i, past[0]) for i in range(200)]
        evidence = world.take(again(evidence), world.batch(arms, frozen), 2 + step)
        found = world.judge(evidence, 2 + step).readings[0]
        assert math.isfinite(found.log_e_harm)
        assert math.isfinite(found.log_e_gate)
        assert found.design_effect >= 1
        assert again(evidence) == evidence


ticks = st.lists(
    st.tuples(
        st.sampled_from(["at_1", "at_2"]), st.sampled_from(["candidate", "baseline"]), st.integers(0, 2),
        st.lists(st.tuples(st.integers(0, 255), st.integers(0, 15)), min_size=1, max_size=6), st.booleans(),
    ),
    max_size=6,
)  # fmt: skip


@settings(deadline=None, max_examples=25)
@given(kind=st.sampled_from(EVERY), slow=st.booleans(), batches=st.lists(ticks, max_size=4), data=st.data())
def test_a_replay_is_equal_whatever_the_order_within_a_tick_and_what_is_stored_between(
    kind: str, slow: bool, batches: list[Any], data: st.DataObject
) -> None:
    metric, guardrail = KINDS[kind]
    more = {"maturity": "1m"} if slow else {}
    if kind == "count_rate" and slow:
        more["denominator"] = "exposure"
    world = Watched({**metric, **more}, {**guardrail})
    warm = world.batch(seen(kind, "baseline", [place % 16 for place in range(600)]), None, MINUTE - 10)
    stored = world.take(Evidence(), warm, 1)
    live = again(stored)
    world.attempts = (attempt("at_1"), attempt("at_2", stage=1))
    for number, tick in enumerate(batches):
        parts = []
        for to, arm, minute, pairs, long in tick:
            observed = [Seen(arm, cell, value_of(kind, value)) for cell, value in pairs]
            parts.append((observed, mine(live).frozen if long else None, MINUTE + minute, to))
        now = 30.0 + 60 * number
        live = world.take(live, joined([world.batch(*part) for part in parts]), now)
        shuffled = data.draw(st.permutations(parts))
        stored = world.take(stored, joined([world.batch(*part) for part in shuffled]), now)
        assert world.judge(live, now) == world.judge(stored, now)
        assert stored == live
        stored = again(stored)
        assert stored == live
        assert msgspec.json.encode(again(stored)) == msgspec.json.encode(stored)


def full(kind: str, world: Watched, frozen: Any, rng: np.random.Generator, slot: int, ends: float) -> Increments:
    """One busy attempt: every cell of both arms has been hit some 200 times."""
    parts: list[Seen] = []
    for arm, many in (("candidate", 10_000), ("baseline", 50_000)):
        cells = rng.integers(0, 256, many).tolist()
        if kind == "proportion":
            drawn: list[Any] = (rng.random(many) < 0.03).tolist()
        else:
            drawn = (np.exp(rng.normal(6.0, 0.7, many)) * ends).tolist()
        parts += [Seen(arm, cell, value) for cell, value in zip(cells, drawn, strict=True)]
    return world.batch(parts, frozen, slot)


@pytest.mark.parametrize(("kind", "plain", "packed"), [("proportion", 21_500, 6_500), ("distribution", 52_000, 19_000)])
def test_the_state_of_a_busy_guardrail_stays_small(kind: str, plain: int, packed: int) -> None:
    world, rng = watched(kind), np.random.default_rng(11)
    evidence = Evidence()
    sizes = []
    for number in range(1, 7):
        world.attempts = tuple(attempt(f"at_{n}", stage=min(n - 1, 1)) for n in range(1, number + 1))
        for part in range(2):
            frozen = mine(evidence).frozen if number > 1 or part else None
            evidence = world.take(evidence, full(kind, world, frozen, rng, MINUTE + number, 1.0), 60.0 * number + part)
            world.judge(evidence, 60.0 * number + part)
            evidence = again(evidence)  # as a database keeps it
        body = msgspec.json.encode(mine(evidence))
        sizes.append((len(body), len(zlib.compress(body))))
    print(f"{kind}: JSON bytes and zlib bytes after 1 to 6 attempts: {sizes}")
    assert sizes[3][0] <= plain
    assert sizes[3][1] <= packed
    assert sizes[5][0] <= sizes[3][0] * 1.1, "it does not grow with the number of attempts"


def test_a_token_limit_that_many_answers_meet_does_not_close_the_gate_for_ever() -> None:
    world, rng = watched("mean"), np.random.default_rng(5)

    def tokens(arm: Any, many: int, at_limit: float = 0.05) -> list[Seen]:
        values = np.where(rng.random(many) < at_limit, 4096.0, np.minimum(rng.lognormal(6, 0.6, many), 4095.0))
        return [Seen(arm, place % 256, round(float(value))) for place, value in enumerate(values)]

    evidence = world.take(Evidence(), world.batch(tokens("baseline", 600)))
    frozen = mine(evidence).frozen
    verdicts = []
    for step in range(20):
        evidence = world.take(
            evidence, world.batch(tokens("candidate", 600) + tokens("baseline", 600), frozen), 2.0 + step
        )
        verdicts.append(world.judge(evidence, 2.0 + step).readings[0].verdict)
    assert verdicts[-1] == "pass"
