"""What each kind of metric counts and bets: from folded increments to the e-processes of `rollout.stats`.

For: one file per kind with the same few verbs, and `kind_of`, which finds the one for a watched metric.
May import: `rollout.stats`, `rollout.domain.evidence`, `rollout.domain.watch`, `rollout_client.evaluation`.
Never: decides anything; what evidence means for a rollout is the judge's business.
"""

from functools import lru_cache

from rollout.domain.kinds.base import Kind
from rollout.domain.kinds.count_rate import CountRate
from rollout.domain.kinds.proportion import Proportion
from rollout.domain.kinds.ratio import RatioPerUnit
from rollout.domain.kinds.value import Value
from rollout.domain.watch import Watch

__all__ = ["Kind", "kind_of"]


@lru_cache(maxsize=1024)
def kind_of(watch: Watch) -> Kind:
    """How a watched metric is counted and tested."""
    match watch.kind:
        case "proportion":
            return Proportion(watch)
        case "count_rate":
            return CountRate(watch)
        case "ratio":
            return RatioPerUnit(watch)
        case "mean" | "quantile" | "distribution":
            return Value(watch)
