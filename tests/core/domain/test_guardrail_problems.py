"""A guardrail that could never be judged is refused when it is saved, with the path of what is wrong."""

from typing import Any

import msgspec
import pytest

from rollout.domain.guardrail_problems import guardrail_problems
from rollout.domain.metric import Metric, metric_problems
from rollout.domain.plan import Guardrail, Signal

Document = dict[str, Any]

RELATIVE = {"max_regression": {"relative": 0.1}}
ABSOLUTE = {"max_regression": {"absolute": 0.1}}
METRICS = {
    metric.key: metric
    for metric in (
        Metric(key="errors", kind="proportion", event="it failed"),
        Metric(key="timeouts", kind="proportion", event="it failed", timeout="1m", maturity="2m"),
        Metric(key="thumbs", kind="proportion", event="thumbs down", denominator="exposure", maturity="5m"),
        Metric(key="correct", kind="proportion", event="correct", direction="higher_is_better"),
        Metric(key="retries", kind="count_rate"),
        Metric(key="cost_per_session", kind="ratio"),
        Metric(key="cost", kind="mean"),
        Metric(key="revenue", kind="mean", direction="higher_is_better"),
        Metric(key="rating", kind="mean", direction="higher_is_better", bounds=(1.0, 5.0)),
        Metric(key="sentiment", kind="mean", direction="higher_is_better", bounds=(-1.0, 1.0)),
        Metric(key="latency", kind="quantile"),
        Metric(key="mood", kind="quantile", bounds=(-1.0, 1.0)),
        Metric(key="tokens", kind="distribution"),
        Metric(key="score", kind="distribution", bounds=(0.0, 10.0)),
        Metric(key="balance", kind="distribution", bounds=(-10.0, 10.0)),
    )
}


def found(metric: str, document: Document, *, signal: bool = False) -> dict[str, str]:
    """Problems by path."""
    item = msgspec.convert({"metric": metric, **document}, Signal if signal else Guardrail)
    return {problem.path: problem.message for problem in guardrail_problems(item, "guardrails[0]", METRICS)}


@pytest.mark.parametrize(
    ("metric", "document"),
    [
        ("errors", ABSOLUTE),
        ("errors", {**RELATIVE, "ceiling": 0.2}),
        ("retries", {**ABSOLUTE, "ceiling": 40.0}),
        ("retries", RELATIVE),
        ("cost_per_session", RELATIVE),
        ("cost_per_session", ABSOLUTE),
        ("cost", RELATIVE),
        ("cost", {**ABSOLUTE, "focus": "mean", "ceiling": 3.0}),
        ("rating", ABSOLUTE),
        ("rating", RELATIVE),
        ("rating", {"max_regression": {"absolute": 0.5}, "ceiling": 3.5}),
        ("sentiment", {"max_regression": {"absolute": 0.5}, "ceiling": -0.5}),
        ("latency", {**RELATIVE, "focus": "p95", "ceiling": 2000.0}),
        ("latency", {"max_regression": {"absolute": 200}, "focus": "p99"}),
        ("mood", {**ABSOLUTE, "focus": "p50"}),
        ("tokens", RELATIVE),
        ("tokens", {**RELATIVE, "focus": "p50", "rollback_on": "any_regression"}),
        ("score", {**RELATIVE, "focus": "mean"}),
        ("thumbs", ABSOLUTE),
        ("timeouts", {**ABSOLUTE, "maturity": "90s"}),
    ],
)
def test_a_sound_guardrail_has_no_problem(metric: str, document: Document) -> None:
    assert found(metric, document) == {}


@pytest.mark.parametrize(
    ("metric", "document", "path", "says"),
    [
        ("nope", RELATIVE, "metric", "there is no metric 'nope'"),
        ("errors", {**ABSOLUTE, "weight": 0}, "weight", "above 0"),
        ("errors", {**ABSOLUTE, "weight": float("inf")}, "weight", "above 0"),
        ("errors", {**ABSOLUTE, "direction": "higher_is_better"}, "direction", "remove the direction"),
        ("errors", {**ABSOLUTE, "focus": "p95"}, "focus", "a proportion has no focus"),
        ("errors", {**ABSOLUTE, "focus": "mean"}, "focus", "a proportion has no focus"),
        ("retries", {**RELATIVE, "focus": "p95"}, "focus", "a count rate has no focus"),
        ("cost_per_session", {**RELATIVE, "focus": "mean"}, "focus", "a ratio per unit has no focus"),
        ("latency", RELATIVE, "focus", "which quantile"),
        ("latency", {**RELATIVE, "focus": "mean"}, "focus", "which quantile"),
        ("latency", {**RELATIVE, "focus": "p0"}, "focus", "no focus"),
        ("latency", {**RELATIVE, "focus": "p100"}, "focus", "no focus"),
        ("latency", {**RELATIVE, "focus": "95"}, "focus", "no focus"),
        ("latency", {**RELATIVE, "focus": "p95 "}, "focus", "no focus"),
        ("latency", {**RELATIVE, "focus": "p٩٥"}, "focus", "no focus"),
        ("cost", {**RELATIVE, "focus": "p95"}, "focus", "is a mean"),
        ("tokens", {**RELATIVE, "focus": "median"}, "focus", "no focus"),
        ("errors", {"max_regression": {}}, "max_regression", "exactly one"),
        ("errors", {"max_regression": {"relative": 0.1, "absolute": 0.1}}, "max_regression", "exactly one"),
        ("cost", {"max_regression": {"relative": 0}}, "max_regression.relative", "above 0"),
        ("cost", {"max_regression": {"relative": -0.1}}, "max_regression.relative", "above 0"),
        ("cost", {"max_regression": {"absolute": float("nan")}}, "max_regression.absolute", "above 0"),
        ("cost", {"max_regression": {"absolute": float("inf")}}, "max_regression.absolute", "above 0"),
        ("correct", {"max_regression": {"relative": 1}}, "max_regression.relative", "below 1"),
        ("revenue", {"max_regression": {"relative": 1.5}}, "max_regression.relative", "below 1"),
        ("sentiment", RELATIVE, "max_regression.relative", "may be negative"),
        ("mood", {**RELATIVE, "focus": "p50"}, "max_regression.relative", "may be negative"),
        ("balance", RELATIVE, "max_regression.relative", "may be negative"),
        ("tokens", ABSOLUTE, "max_regression.absolute", "shifted by a ratio"),
        ("score", ABSOLUTE, "max_regression.absolute", "shifted by a ratio"),
        ("errors", {"max_regression": {"absolute": 1}}, "max_regression.absolute", "below 1"),
        ("rating", {"max_regression": {"absolute": 4}}, "max_regression.absolute", "below 4"),
        ("mood", {"max_regression": {"absolute": 2}, "focus": "p50"}, "max_regression.absolute", "below 2"),
        ("errors", {**ABSOLUTE, "ceiling": 0}, "ceiling", "between 0 and 1"),
        ("errors", {**ABSOLUTE, "ceiling": 1}, "ceiling", "between 0 and 1"),
        ("retries", {**RELATIVE, "ceiling": -1}, "ceiling", "must be above 0"),
        ("cost", {**RELATIVE, "ceiling": float("inf")}, "ceiling", "must be above 0"),
        ("cost", {**RELATIVE, "ceiling": float("nan")}, "ceiling", "must be above 0"),
        ("rating", {**ABSOLUTE, "ceiling": 5.0}, "ceiling", "between 1 and 5"),
        ("sentiment", {**ABSOLUTE, "ceiling": -1.0}, "ceiling", "between -1 and 1"),
        ("cost_per_session", {**RELATIVE, "ceiling": 1.0}, "ceiling", "remove the ceiling"),
        ("errors", {**ABSOLUTE, "maturity": "soon"}, "maturity", ""),
        ("errors", {**ABSOLUTE, "maturity": "7h"}, "maturity", "6:00:00"),
        ("timeouts", {**ABSOLUTE, "maturity": "59s"}, "maturity", "timeout"),
        ("thumbs", {**ABSOLUTE, "maturity": "0s"}, "maturity", "maturity above 0"),
    ],
)
def test_an_impossible_guardrail_is_refused_with_its_path(
    metric: str, document: Document, path: str, says: str
) -> None:
    problems = found(metric, document)
    assert set(problems) == {f"guardrails[0].{path}"}
    message = problems[f"guardrails[0].{path}"]
    assert says in message
    assert len(message) > 12


def test_a_signal_is_checked_like_a_guardrail() -> None:
    assert found("tokens", ABSOLUTE, signal=True) == found("tokens", ABSOLUTE)
    assert set(found("latency", RELATIVE, signal=True)) == {"guardrails[0].focus"}


def test_everything_wrong_is_said_at_once() -> None:
    problems = found("cost", {"max_regression": {}, "focus": "p95", "ceiling": -1, "weight": 0})
    assert {path.removeprefix("guardrails[0].") for path in problems} == {
        "weight", "focus", "max_regression", "ceiling",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"kind": "proportion"}, "event"),
        ({"kind": "mean", "denominator": "exposure", "maturity": "1m"}, "denominator"),
        ({"kind": "quantile", "denominator": "exposure", "maturity": "1m"}, "denominator"),
        ({"kind": "distribution", "denominator": "exposure", "maturity": "1m"}, "denominator"),
        ({"kind": "ratio", "denominator": "exposure", "maturity": "1m"}, "denominator"),
        ({"kind": "count_rate", "denominator": "exposure"}, "maturity"),
        ({"kind": "mean", "timeout": "1m", "maturity": "1m"}, "timeout"),
        ({"kind": "proportion", "event": "e", "timeout": "2m", "maturity": "1m"}, "maturity"),
        ({"kind": "proportion", "event": "e", "direction": "higher_is_better", "timeout": "1m", "maturity": "1m"},
         "timeout"),
        ({"kind": "proportion", "event": "e", "bounds": [0, 1]}, "bounds"),
        ({"kind": "ratio", "bounds": [0, 1]}, "bounds"),
        ({"kind": "count_rate", "bounds": [0, 1]}, "bounds"),
        ({"kind": "mean", "bounds": [1, 1]}, "bounds"),
        ({"kind": "mean", "bounds": [5, 1]}, "bounds"),
        ({"kind": "mean", "bounds": [0, float("inf")]}, "bounds"),
        ({"kind": "mean", "bounds": [float("nan"), 1]}, "bounds"),
        ({"kind": "mean", "bounds": [-1e308, 1e308]}, "bounds"),
        ({"kind": "mean", "bounds": [0, 1e-300]}, "bounds"),
    ],
)  # fmt: skip
def test_an_impossible_metric_is_refused_with_its_path(document: Document, path: str) -> None:
    metric = msgspec.convert({"key": "m", **document}, Metric)
    assert path in [problem.path for problem in metric_problems(metric)]
