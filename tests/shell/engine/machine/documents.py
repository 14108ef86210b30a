"""What the machine's rollouts refer to, and plans: valid by construction over everything that a document allows, or
broken in one place, which the refusal must name.
"""

from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from rollout.domain.cohort import Cohort
from rollout.domain.flag import Flag
from rollout.domain.metric import Metric
from rollout.domain.plan import RolloutDocument

Plan = dict[str, Any]
ENVIRONMENTS = ["production", "staging"]
VARIANTS = {"v7": "small", "v8": "large", "v9": "huge", "off": "none"}
FLAGS = {
    "answer": Flag(key="answer", variants=VARIANTS, default_variant="v7"),
    "search": Flag(key="search", variants=VARIANTS, default_variant="off", salt="find"),
}
PLACES = [(flag, environment) for flag in FLAGS for environment in ENVIRONMENTS]
COHORTS = {
    "staff": Cohort(key="staff", units=("ann", "bob", "u4")),
    "friends": Cohort(key="friends", units=("cay", "u5", "u6", "u7")),
}
METRICS = {
    metric.key: metric
    for metric in [
        Metric(key="errors", kind="proportion", event="the request failed"),
        Metric(key="quality", kind="proportion", event="correct", direction="higher_is_better"),
        Metric(key="timeouts", kind="proportion", event="failed or timed out", timeout="1m", maturity="2m"),
        Metric(key="thumbs", kind="proportion", event="thumbs down", denominator="exposure", maturity="2m"),
        Metric(key="cost", kind="mean", unit="usd"),
        Metric(key="score", kind="mean", direction="higher_is_better", bounds=(1.0, 5.0)),
        Metric(key="latency", kind="quantile", unit="ms"),
        Metric(key="tokens", kind="distribution", maturity="1m"),
        Metric(key="retries", kind="count_rate"),
        Metric(key="reuse", kind="ratio"),
    ]
}
GIVEN = ["ann", "u3", "u9"]
"""Units that people may give a variant of their own."""
SEEDS = [*FLAGS.values(), *COHORTS.values(), *METRICS.values()]
_BY_VERDICT = {
    "no_traffic": {"then": "pause", "after": "30m"},
    "no_data": "roll_back",
    "error": {"then": "roll_back", "after": "1m"},
}
_APPROVALS: list[Any] = ["required", {"role": "operator", "expires": "10m"}]
_COMMON = ["errors", "errors", "quality", "timeouts", "thumbs"]


def some(values: list[Any], otherwise: Any = None) -> SearchStrategy[Any]:
    """Mostly nothing, else one of the values."""
    return st.sampled_from([otherwise] * (2 * len(values)) + values)


@st.composite
def watched(draw: DrawFn, metric: str, *, signal: bool) -> dict[str, Any]:
    """A guardrail or a signal on a metric."""
    kind = METRICS[metric].kind
    bounded = kind == "proportion" or metric == "score"
    absolute = bounded and draw(st.booleans())
    size = draw(st.sampled_from([0.05, 0.1, 0.3])) * (2.0 if metric == "score" else 1.0)
    item: dict[str, Any] = {"metric": metric, "max_regression": {"absolute" if absolute else "relative": size}}
    if kind == "quantile":
        item["focus"] = draw(st.sampled_from(["p50", "p95"]))
    if signal:
        return item
    item["on_breach"] = draw(st.sampled_from(["roll_back", "pause", "pause", "warn"]))
    item["on_missing"] = draw(some(["pause", "roll_back", _BY_VERDICT], "hold"))
    if draw(some([1], 0)):
        item["error_limit"] = 1
    if metric in ("errors", "cost"):
        budgets = [{"per_stage": 40.0}, {"per_stage": 400.0}, {"per_day": 900.0}]
        item["budget"] = draw(st.sampled_from([None, None, *budgets]))
    item["rollback_on"] = draw(some(["any_regression"], "beyond_tolerance"))
    item["weight"] = draw(some([3.0], 1.0))
    if kind == "proportion":
        item["ceiling"] = draw(some([0.5]))
    if metric in ("errors", "quality"):
        item["maturity"] = draw(some(["1m"]))
    return {name: value for name, value in item.items() if value is not None}


@st.composite
def stage(draw: DrawFn, name: str, percentage: float, cohort: str | None) -> dict[str, Any]:
    """One stage with its gates."""
    least = draw(st.sampled_from(["0s", "30s", "30s", "10m", "10m", "2h"]))
    gates = {
        "min_duration": least,
        "max_duration": draw(some(["2h", "1d"])),
        "min_units": draw(st.sampled_from([None, None, 0, 0, 20, 400])),
        "approval": draw(some(_APPROVALS)),
        "cohort": cohort,
    }
    return {"name": name, "percentage": percentage, **{key: value for key, value in gates.items() if value is not None}}


@st.composite
def plans(draw: DrawFn) -> Plan:
    """The body of a valid plan."""
    guarded = draw(st.sampled_from([0, 1, 1, 1, 2]))
    signals = draw(some([1], 0))
    pool = st.sampled_from(_COMMON) | st.sampled_from(sorted(METRICS))
    metrics = list(dict.fromkeys(draw(st.lists(pool, min_size=guarded + signals, max_size=guarded + signals))))
    cohorts = draw(st.sampled_from([[], [], ["staff"], ["friends", "staff"]]))
    open_to_all = sorted(
        draw(st.lists(st.sampled_from([1.0, 5.0, 10.0, 25.0, 50.0]), min_size=1, max_size=3, unique=True))
    )
    if not guarded and draw(st.booleans()):
        open_to_all.append(100.0)
    levels = [(draw(st.sampled_from([20.0, 50.0, 100.0])), cohort) for cohort in cohorts]
    levels += [(percentage, None) for percentage in open_to_all]
    plan: Plan = {
        "stages": [draw(stage(f"s{i}", percentage, cohort)) for i, (percentage, cohort) in enumerate(levels)],
        "guardrails": [draw(watched(metric, signal=False)) for metric in metrics[:guarded]],
        "signals": [draw(watched(metric, signal=True)) for metric in metrics[guarded:]],
        "lease": draw(st.sampled_from(["none", "10s", "2m", "15m"])),
        "on_undecided": draw(some(["advance", "roll_back"], "hold")),
        "analysis": {"risk_scaled": draw(st.booleans()), "alpha_advance": draw(st.sampled_from([0.05, 0.2]))},
        "reseed": draw(some([True], False)),
        "mode": draw(st.sampled_from(["enforce"] * 4 + ["observe"])),
        "rollback": {"strategy": draw(st.sampled_from(["immediate", "stepped"])), "every": "1m"},
        "start_approval": draw(st.sampled_from([None] * 9 + ["required"])),
        "fast_track": draw(st.sampled_from([None, None, "1d"])),
        "exclusion": draw(
            st.sampled_from([None, {"group": "checkout", "share": 40.0}, {"group": "checkout", "share": 30.0}])
        ),
    }
    if open_to_all[-1] < 100.0 and draw(st.booleans()):
        plan["bake"] = {
            "duration": draw(st.sampled_from(["30s", "10m"])),
            "holdback": draw(st.sampled_from([1.0, 5.0])),
        }
    return plan


def beginnings() -> SearchStrategy[Plan]:
    """Mostly nothing; or the rollout is to start by itself, so many seconds from now."""
    return st.sampled_from([{}] * 6 + [{"start_at": 30.0}, {"start_at": 600.0}])


def revisions() -> SearchStrategy[Plan]:
    """What a revision changes: of the stages by name, of the rest by field."""
    return st.sampled_from(
        [
            {"mode": "observe"}, {"mode": "enforce"}, {"min_duration": "0s", "min_units": 0}, {"approval": "required"},
            {"approval": None}, {"drop": 1}, {"candidate": "off"}, {"lease": "20m"}, {"description": "said better"},
            {"start_approval": None}, {"bake": None}, {"last": 99.0},
        ]
    )  # fmt: skip


def revised(plan: RolloutDocument, stage: int, change: Plan) -> Plan:
    """The fields that make the next version of a rollout that is in a stage; -1 before the start."""
    stages = list(msgspec.to_builtins(plan.stages))
    gates = {name: value for name, value in change.items() if name in ("min_duration", "min_units", "approval")}
    at = min(max(stage, 0), len(stages) - 1)
    stages[at] = {**stages[at], **gates}
    if "drop" in change and len(stages) > at + 2:
        del stages[at + 1]
    if "last" in change and not plan.guardrails and plan.bake is None and stages[-1].get("cohort") is None:
        stages[-1] = {**stages[-1], "percentage": change["last"]}
    rest = {name: value for name, value in change.items() if name not in (*gates, "drop", "last")}
    return {"stages": stages, **rest}


@st.composite
def edits(draw: DrawFn) -> Flag | Cohort:
    """A flag with another default, an override of one unit, a rule for some; or other people in the staff."""
    if draw(st.booleans()):
        units = st.lists(st.sampled_from(["ann", "u2", "u4", "u8"]), min_size=1, unique=True)
        return Cohort(key="staff", units=tuple(draw(units)))
    targeting: Plan = {"overrides": draw(st.sampled_from([{}, {"u1": "v7"}, {"u1": "v9"}]))}
    if draw(st.booleans()):
        vip = {"attribute": "plan", "op": "in", "values": ["vip"]}
        targeting["rules"] = [{"variant": "v9", "when": vip}]
    flag = msgspec.to_builtins(FLAGS[draw(st.sampled_from(sorted(FLAGS)))])
    default = draw(st.sampled_from(["v7", "off"]))
    return msgspec.convert({**flag, "default_variant": default, "targeting": {"production": targeting}}, Flag)


def _lower(plan: Plan) -> str:
    last = len(plan["stages"]) - 1
    plan["stages"].append({"name": "again", "percentage": plan["stages"][last]["percentage"]})
    return f"stages[{last + 1}].percentage"


def _no_stage(plan: Plan) -> str:
    plan["stages"] = []
    return "stages"


def _nameless(plan: Plan) -> str:
    plan["stages"][0]["name"] = ""
    return "stages[0].name"


def _unknown_cohort(plan: Plan) -> str:
    plan["stages"].insert(0, {"name": "nobody", "cohort": "strangers", "percentage": 5.0})
    return "stages[0].cohort"


def _odd_duration(plan: Plan) -> str:
    plan["stages"][-1]["min_duration"] = "soon"
    return f"stages[{len(plan['stages']) - 1}].min_duration"


def _too_short(plan: Plan) -> str:
    plan["stages"][0].update(min_duration="2h", max_duration="1h")
    return "stages[0].max_duration"


def _unknown_metric(plan: Plan) -> str:
    plan["guardrails"] = [{"metric": "moods", "max_regression": {"relative": 0.1}}]
    return "guardrails[0].metric"


def _no_margin(plan: Plan) -> str:
    plan["signals"], plan["guardrails"] = [{"metric": "errors", "max_regression": {"relative": 0.0}}], []
    return "signals[0].max_regression.relative"


def _short_lease(plan: Plan) -> str:
    plan["lease"] = "1s"
    return "lease"


def _no_holdback(plan: Plan) -> str:
    plan["bake"] = {"duration": "10m", "holdback": 0.0}
    return "bake.holdback"


def _certain(plan: Plan) -> str:
    plan["analysis"] = {"alpha_rollback": 1.0}
    return "analysis.alpha_rollback"


BREAKAGES = [
    _lower, _no_stage, _nameless, _unknown_cohort, _odd_duration, _too_short, _unknown_metric, _no_margin, _short_lease,
    _no_holdback, _certain,
]  # fmt: skip


@st.composite
def broken_plans(draw: DrawFn) -> tuple[Plan, str]:
    """A plan with one thing wrong, and the path of it."""
    plan = draw(plans())
    path: str = draw(st.sampled_from(BREAKAGES))(plan)
    return plan, path


def document(plan: Plan, place: tuple[str, str], baseline: str, candidate: str) -> dict[str, Any]:
    """A rollout of a plan."""
    flag, environment = place
    return {
        "kind": "Rollout", "flag": flag, "environment": environment, "baseline": baseline, "candidate": candidate,
        **plan,
    }  # fmt: skip
