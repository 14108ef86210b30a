"""Documents the domain tests share."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from rollout.domain.cohort import Cohort
from rollout.domain.flag import Flag
from rollout.domain.metric import Metric
from rollout.domain.plan import RolloutDocument

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


class World:
    """What the documents below refer to."""

    flags = {"answer": Flag(key="answer", variants={"v7": "small", "v8": "large", "off": "none"}, default_variant="v7")}
    cohorts = {"staff": Cohort(key="staff", units=("ann", "bob"))}
    metrics = {
        "error_rate": Metric(key="error_rate", kind="proportion", event="the request failed"),
        "quality": Metric(key="quality", kind="proportion", event="correct", direction="higher_is_better"),
        "slow_errors": Metric(
            key="slow_errors", kind="proportion", event="failed or timed out", timeout="1m", maturity="2m"
        ),
        "thumbs_down": Metric(
            key="thumbs_down", kind="proportion", event="thumbs down", denominator="exposure", maturity="2m"
        ),
        "latency_ms": Metric(key="latency_ms", kind="quantile", unit="ms"),
    }
    environments = frozenset({"production"})


def raw(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "kind": "Rollout",
        "flag": "answer",
        "environment": "production",
        "baseline": "v7",
        "candidate": "v8",
        "stages": [
            {"name": "canary", "percentage": 10, "min_duration": "10m", "min_units": 20},
            {"name": "half", "percentage": 50, "min_duration": "20m", "min_units": 20},
        ],
        "guardrails": [{"metric": "error_rate", "max_regression": {"absolute": 0.02}}],
    }
    return {**document, **changes}


def rollout(**changes: Any) -> RolloutDocument:
    return msgspec.convert(raw(**changes), RolloutDocument)
