"""A plan simulated before it starts: the judge's margins, what is found, what is left out, what is refused."""

from typing import Any

import pytest

from rollout.domain.expectation import Expectation, ExpectedMetric, Regression, expectation_problems
from rollout.domain.forecast import Fate, Forecast, _open_stages, forecast
from rollout.domain.metric import Metric
from rollout.domain.plan import Bake, Guardrail, MaxRegression, PlanBody, Signal, Stage
from rollout.domain.watch import gate_margin, watches
from rollout.stats.margin import risk_scaled

METRICS = {
    "errors": Metric(key="errors", kind="proportion", event="it failed"),
    "calls": Metric(key="calls", kind="count_rate"),
    "latency": Metric(key="latency", kind="quantile", maturity="2m"),
    "cost": Metric(key="cost", kind="mean"),
    "stars": Metric(key="stars", kind="mean", direction="higher_is_better", bounds=(1.0, 5.0)),
    "share": Metric(key="share", kind="ratio"),
}
HALF = MaxRegression(relative=0.5)
ERRORS = Guardrail(metric="errors", max_regression=HALF)


def stage(percentage: float, **more: Any) -> Stage:
    return Stage(name=f"to {percentage:g}", percentage=percentage, min_duration="10m", **more)


def plan(*guardrails: Guardrail, **more: Any) -> PlanBody:
    return PlanBody(**{"stages": (stage(5), stage(20), stage(50)), "guardrails": guardrails or (ERRORS,), **more})


def expected(**more: Any) -> Expectation:
    known = {
        "errors": ExpectedMetric(rate=0.1),
        "calls": ExpectedMetric(rate=2.0),
        "latency": ExpectedMetric(median=800.0, spread=0.8),
        "cost": ExpectedMetric(mean=0.01, spread=0.5),
    }
    return Expectation(**{"requests_per_minute": 2_000.0, "metrics": known, "runs": 40, **more})


def test_the_same_candidate_completes_and_a_worse_one_is_taken_back() -> None:
    worse = (Regression(metric="errors", times=2.0), Regression(metric="cost", times=2.0))
    guarded = plan(ERRORS, Guardrail(metric="cost", max_regression=HALF))
    found = forecast(guarded, METRICS, expected(regressions=worse))
    without, *fates = found.fates
    assert (without.completed, without.rolled_back, without.regression, without.events) == (1.0, 0.0, None, None)
    assert without.until_rollback is None
    assert [(fate.regression, fate.stage) for fate in fates] == [
        (regression, name) for regression in worse for name in ("to 5", "to 20", "to 50")
    ]
    for fate in fates:
        assert (fate.reached, fate.rolled_back, fate.until_rollback) == (1.0, 1.0, fate.hours)
        assert 0.0 < fate.hours[0] <= fate.hours[1]
        assert fate.units == fate.requests, "each request is of a unit of its own"
    assert all(fate.events == pytest.approx(fate.requests * 0.1, rel=0.01) for fate in fates[:3])
    assert all(fate.units_harmed == pytest.approx(fate.events) for fate in fates[:3])
    assert all(fate.events is None and fate.units_harmed is None for fate in fates[3:]), (
        "nobody counts events of a value"
    )
    assert fates[0].requests < fates[2].requests
    assert [stage.stage for stage in found.stages] == ["to 5", "to 20", "to 50"]
    assert all(sum(stage.last.values()) == pytest.approx(1.0) and stage.reached == 1.0 for stage in found.stages)
    assert forecast(guarded, METRICS, expected(regressions=worse)) == found, "the same seed, the same runs"


def test_a_metric_that_should_rise_is_worse_when_it_falls() -> None:
    metrics = {"errors": Metric(key="errors", kind="proportion", event="solved", direction="higher_is_better")}
    guarded = plan(Guardrail(metric="errors", max_regression=MaxRegression(relative=0.2)))
    known = {"errors": ExpectedMetric(rate=0.8)}
    found = forecast(guarded, metrics, expected(metrics=known, regressions=(Regression(metric="errors", times=0.5),)))
    assert [fate.rolled_back for fate in found.fates] == [0.0, 1.0, 1.0, 1.0]
    assert found.fates[1].events == pytest.approx(found.fates[1].requests * 0.4, rel=0.01), "good ones that are missing"


@pytest.mark.parametrize("more", [{}, {"bake": Bake(duration="1h", holdback=5.0)}])
def test_the_gates_are_those_of_the_judge(more: dict[str, Any]) -> None:
    guarded = plan(stages=(stage(2, cohort="staff"), stage(5), stage(20), stage(50)), **more)
    [watch] = watches(guarded, METRICS)
    opened = list(_open_stages(guarded))
    for one, number in zip(opened, (1, 2, 3, 4), strict=False):
        scaled = risk_scaled(watch.margin, watch.direction, one.opens, 50.0, None)
        assert scaled == gate_margin(guarded, watch, number)


def test_units_that_come_back_say_less_and_are_counted_apart_from_their_requests() -> None:
    worse = (Regression(metric="errors", times=2.0),)
    known = {"errors": ExpectedMetric(rate=0.1, stickiness=0.3)}

    def found(units: int | None) -> list[Fate]:
        metrics = known if units else {"errors": ExpectedMetric(rate=0.1)}
        return list(forecast(plan(), METRICS, expected(metrics=metrics, units=units, regressions=worse)).fates)

    alone, many, few = found(None), found(50_000), found(5_000)
    for one, other, third in zip(alone, many, few, strict=True):
        assert one.hours[0] <= other.hours[0] <= third.hours[0]
    assert alone[1].hours[0] < few[1].hours[0]
    for fate in (*many[1:], *few[1:]):
        assert fate.events is not None
        assert fate.units_harmed is not None
        assert fate.units < fate.requests
        assert fate.units_harmed < fate.events
        assert fate.units_harmed < fate.units
    assert few[1].units <= 5_000


def test_a_gate_that_is_never_passed_is_the_last_and_what_nobody_came_to_has_no_fate() -> None:
    stages = (stage(5, min_units=10**7), stage(20))
    worse = (Regression(metric="errors", times=2.0),)
    found = forecast(plan(stages=stages), METRICS, expected(regressions=worse, horizon="3h"))
    assert [(each.stage, each.last) for each in found.stages] == [("to 5", {"min_units": 1.0})]
    without, _, later = found.fates
    assert (without.undecided, without.hours) == (1.0, (3.0, 3.0))
    assert (later.stage, later.reached, later.rolled_back, later.hours) == ("to 20", 0.0, 0.0, (0.0, 0.0))


def test_a_bake_takes_its_time_and_no_proof() -> None:
    found = forecast(plan(bake=Bake(duration="2h", holdback=1.0)), METRICS, expected())
    assert (found.stages[-1].stage, found.stages[-1].last) == ("bake", {"min_duration": 1.0})
    assert found.stages[-1].hours == (2.0, 2.0)


def test_what_is_not_simulated_is_said() -> None:
    guarded = plan(
        ERRORS,
        Guardrail(metric="latency", max_regression=HALF, focus="p95"),
        Guardrail(metric="stars", max_regression=HALF),
        Guardrail(metric="share", max_regression=HALF),
        Guardrail(metric="calls", max_regression=HALF, on_breach="warn", ceiling=9.0),
        signals=(Signal(metric="cost", max_regression=HALF),),
        stages=(stage(50, cohort="staff"), stage(5, approval="required"), stage(20)),
    )
    assert forecast(guarded, METRICS, expected(runs=2)).left_out[1:] == (
        "stage to 50: nobody knows the traffic of its cohort; it takes 10m",
        "stage to 5: the time until somebody approves",
        "latency: that its outcomes are awaited for 120 s",
        "stars: a mean with bounds is not simulated",
        "share: a ratio is not simulated",
        "calls: a warning takes nothing back",
        "calls: its ceiling",
        "cost: a signal takes nothing back",
    )


def test_a_plan_of_which_nothing_can_be_simulated_is_refused() -> None:
    with pytest.raises(ValueError, match="no guardrail that can be simulated"):
        forecast(plan(Guardrail(metric="share", max_regression=HALF)), METRICS, expected())
    with pytest.raises(ValueError, match="no stage with a control arm"):
        forecast(plan(stages=(stage(5, cohort="staff"),)), METRICS, expected())


def test_a_long_plan_is_looked_at_less_often() -> None:
    def looks(lasts: str) -> int:
        stages = (Stage(name="one", percentage=50.0, min_duration=lasts),)
        found: Forecast = forecast(plan(stages=stages), METRICS, expected(runs=1))
        return found.minutes_per_look

    assert [looks(lasts) for lasts in ("40m", "41m", "2d", "100d")] == [1, 2, 180, 1440]


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"requests_per_minute": 0.0}, "requests_per_minute"),
        ({"runs": 0}, "runs"),
        ({"horizon": "soon"}, "horizon"),
        ({"metrics": {}}, "metrics"),
        ({"metrics": {"errors": ExpectedMetric(rate=1.5)}}, "metrics.errors.rate"),
        ({"metrics": {"errors": ExpectedMetric(mean=0.1)}}, "metrics.errors.rate"),
        ({"metrics": {"errors": ExpectedMetric(rate=0.1), "cost": ExpectedMetric(rate=0.1)}}, "metrics.cost"),
        (
            {"metrics": {"errors": ExpectedMetric(rate=0.1), "cost": ExpectedMetric(mean=1, spread=0)}},
            "metrics.cost.spread",
        ),
        ({"metrics": {"errors": ExpectedMetric(rate=0.1), "gone": ExpectedMetric(rate=0.1)}}, "metrics.gone"),
        ({"units": 1}, "units"),
        ({"metrics": {"errors": ExpectedMetric(rate=0.1, stickiness=0.1)}}, "metrics.errors.stickiness"),
        ({"units": 9, "metrics": {"errors": ExpectedMetric(rate=0.1, stickiness=1.0)}}, "metrics.errors.stickiness"),
        ({"regressions": (Regression(metric="cost", times=2.0),)}, "regressions[0].metric"),
        ({"regressions": (Regression(metric="errors", times=0.0),)}, "regressions[0].times"),
    ],
)  # fmt: skip
def test_a_wrong_expectation_is_refused_with_its_path(changes: dict[str, Any], path: str) -> None:
    assert [problem.path for problem in expectation_problems(expected(**changes), plan(), METRICS)] == [path]
    assert expectation_problems(expected(), plan(), METRICS) == []
