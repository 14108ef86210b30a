"""What a look found, in sentences for people; each names the numbers behind it.

Evidence is a bet against what would have to be disproved: an e-value of 20 is a stake that has grown 20-fold, and grows
beyond 1 / alpha with a probability of at most alpha, however often one looks. So it is said as a growth, with its
logarithm behind.
"""

import math
from datetime import timedelta
from typing import Literal

import msgspec

from rollout.domain.judge import ArmNumbers, Reading, Verdict
from rollout.stats.margin import Direction, Margin

ChangeForm = Literal["ratio", "difference", "share_beyond"]
LARGEST_SAID = math.log(1e6)
MANY = 1e9
RETURNING = 2.0
"""Design effect from which on a request of a known user says less than half of what one of a new user does."""
JUDGED: dict[Verdict, str] = {"pass": "passed", "breach": "worse", "undecided": "undecided"}
UNJUDGED: dict[Verdict, str] = {
    "no_traffic": "no request reached this stage lately",
    "no_data": "requests arrive, but no outcome of this metric",
    "stale": "requests arrive, but no outcome of this metric lately",
    "insufficient": "not enough outcomes yet",
    "error": "its source could not be asked",
}


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """How large the change is: an estimate with an always-valid interval; null where an end is unbounded or unknown.

    `form`: "ratio" is candidate / baseline, "difference" candidate - baseline, "share_beyond" the difference of the
    shares of values beyond the baseline's frozen quantile. At all looks together the change is below `lower` with a
    probability of at most `alpha_lower`, and above `upper` with at most `alpha_upper`.
    """

    form: ChangeForm
    estimate: float | None
    lower: float | None
    upper: float | None
    alpha_lower: float
    alpha_upper: float


class Lines(msgspec.Struct, frozen=True, kw_only=True):
    """What a metric is held against: beyond `rollback` lies harm, within `gate` this stage may be left."""

    direction: Direction
    rollback: Margin
    gate: Margin


def sentence(reading: Reading) -> str:
    """The verdict on a metric in short: why it holds, or what it has passed with."""
    return f"{reading.metric}: {_short(reading)}"


def whole_sentence(reading: Reading, lines: Lines, effect: Effect | None, exposures: ArmNumbers) -> str:
    """The verdict on a metric with every number behind it, and what is still needed.

    `effect` None: its size was not computed. `exposures`: requests of the attempt, candidate and baseline.
    """
    parts = [_found(reading, exposures)]
    if effect is not None and all(map(reading.amount, (reading.candidate, reading.baseline))):
        parts.append(_change(effect, reading))
    parts += [_lines(lines, reading), *_evidence(reading), _needed(reading)]
    return f"{reading.metric}: {'; '.join(parts)}"


def arms(reading: Reading) -> str:
    """What was observed in both arms."""
    said = f"candidate {_level(reading, reading.candidate)}, baseline {_level(reading, reading.baseline)}"
    if reading.beyond is None or reading.threshold is None:
        return said
    candidate, baseline = (f"{100 * share:.2f} %" for share in reading.beyond)
    return f"{said}; beyond {reading.threshold:.4g}: {candidate} and {baseline}"


def span(left: timedelta) -> str:
    """A time that is left, as people say it."""
    seconds = max(0.0, left.total_seconds())
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def growth(log_e: float) -> str:
    """An e-value in words: '3.4-fold'."""
    if log_e > LARGEST_SAID:
        return "over 1,000,000-fold"
    grown = math.exp(log_e)
    return f"{grown:,.0f}-fold" if grown >= 1000 else f"{grown:.3g}-fold"


def _short(reading: Reading) -> str:
    numbers = arms(reading)
    match reading.verdict:
        case "undecided":
            needed = f", about {_count(reading.units_needed)} more {_requests(reading)}" if reading.units_needed else ""
            return f"undecided: {numbers}; {_gate(reading)}{needed}"
        case "breach":
            return f"worse: {numbers}; {_harm(reading)}"
        case "no_traffic":
            return "no request reached this stage lately"
        case "no_data":
            return "requests arrive, but no outcome of this metric; is it observed?"
        case "stale":
            return "requests arrive, but no outcome of this metric lately"
        case "insufficient" if reading.awaits:
            return _needed(reading)
        case "insufficient":
            return f"one arm has no outcome yet: {numbers}"
        case "error":
            return f"its source could not be asked: {reading.source_error}"
        case "pass":
            return f"passed: {numbers}"


def _found(reading: Reading, exposures: ArmNumbers) -> str:
    """The verdict, and what was observed: of a metric without evidence also how many requests there were."""
    if reading.verdict in UNJUDGED:
        requests = f"of {_number(exposures.n)} and {_number(exposures.x)} requests in this attempt"
        why = f" ({reading.source_error})" if reading.verdict == "error" else ""
        return f"{UNJUDGED[reading.verdict]}{why}: {arms(reading)}, {requests}"
    return f"{JUDGED[reading.verdict]}: {arms(reading)}"


def _change(effect: Effect, reading: Reading) -> str:
    size = "" if effect.estimate is None else f" {_amount(effect.estimate, effect, reading)},"
    ends = [
        f"at {most} {_amount(end, effect, reading)} ({100 * (1 - alpha):.4g} %)"
        for most, end, alpha in (
            ("least", effect.lower, effect.alpha_lower),
            ("most", effect.upper, effect.alpha_upper),
        )
        if end is not None
    ]
    what = "of the share beyond " if effect.form == "share_beyond" else ""
    if not ends:
        return f"the change {what}is{size} known no closer yet" if size else f"the change {what}has no size yet"
    return f"the change {what}is{size} {' and '.join(ends)}, however often one looks"


def _amount(value: float, effect: Effect, reading: Reading) -> str:
    """A change with its sign: in percent, in percentage points, or in the metric's own unit."""
    if effect.form == "ratio":
        return f"{_signed(100 * (value - 1))} %"
    if effect.form == "share_beyond" or reading.kind == "proportion":
        return f"{_signed(100 * value)} points"
    return _signed(value)


def _signed(value: float) -> str:
    return f"{value:+,.0f}" if abs(value) >= 1000 else f"{value + 0.0:+.4g}"


def _lines(lines: Lines, reading: Reading) -> str:
    way = "rise" if lines.direction == "lower_is_better" else "fall"
    harm = f"a {way} beyond {_margin(lines.rollback, reading)}" if lines.rollback.size else f"any {way}"
    wider = f", {lines.gate.widening:.3g} times the plan's margin" if lines.gate.widening > 1.0 else ""
    return f"{harm} is harm, this gate accepts one up to {_margin(lines.gate, reading)}{wider}"


def _margin(margin: Margin, reading: Reading) -> str:
    if margin.relative:
        return f"{100 * margin.size:.4g} %"
    return f"{100 * margin.size:.4g} points" if reading.kind == "proportion" else f"{margin.size:.4g}"


def _evidence(reading: Reading) -> tuple[str, ...]:
    match reading.verdict:
        case "pass":
            return (_gate(reading),)
        case "breach":
            return (_harm(reading),)
        case "undecided":
            return _gate(reading), _harm(reading)
        case _:
            return ()


def _gate(reading: Reading) -> str:
    """Evidence that the change is within the gate's margin; each gate of a metric that has several must pass."""
    each = reading.gates or {"": reading.log_e_gate}
    grown = " and ".join(f"{name} {growth(log_e)}".strip() for name, log_e in each.items())
    return (
        f"evidence that it is within is {grown}, {growth(reading.gate_threshold)} opens the gate "
        f"(log e {_compared(reading.log_e_gate, reading.gate_threshold)})"
    )


def _harm(reading: Reading) -> str:
    return (
        f"evidence of harm is {growth(reading.log_e_harm)}, {growth(reading.harm_threshold)} proves it "
        f"(log e {_compared(reading.log_e_harm, reading.harm_threshold)})"
    )


def _compared(log_e: float, threshold: float) -> str:
    return f"{log_e:.2f} {'>=' if log_e >= threshold else '<'} {threshold:.2f}"


def _needed(reading: Reading) -> str:
    """What it still takes."""
    match reading.verdict:
        case "pass":
            return "nothing more is needed"
        case "undecided" if reading.units_needed:
            as_good = "if the candidate is as good" if reading.kind == "proportion" else "at the pace so far"
            return f"about {_count(reading.units_needed)} more {_requests(reading)} are needed {as_good}"
        case "undecided":
            return "how many more requests are needed cannot be said yet"
        case "breach" if reading.role == "guardrail":
            return "nothing more is needed to prove it"
        case "breach" if reading.role == "signal":
            return "the stage holds until this is no longer so"
        case "breach":
            return "it is shown and holds nothing"
        case "no_traffic":
            return "requests to both arms are needed"
        case "no_data":
            return "outcomes are needed: is it observed in the application?"
        case "stale":
            return "newer outcomes are needed"
        case "insufficient" if reading.awaits:
            return f"{reading.awaits} more baseline outcomes until its thresholds are frozen, nothing is judged before"
        case "insufficient":
            without = [
                name
                for name, arm in (("candidate", reading.candidate), ("baseline", reading.baseline))
                if not reading.amount(arm)
            ]
            return f"outcomes of the {' and of the '.join(without)} are needed"
        case "error":
            return "an answer of its source is needed"


def _requests(reading: Reading) -> str:
    """Where users return, those who are in it say little more: it takes others, of a longer time or a larger stage."""
    return "candidate requests" + (" of users who are not in it" if reading.design_effect >= RETURNING else "")


def _count(needed: float) -> str:
    return f"{max(1, math.ceil(needed)):,}" if needed < MANY else "very many"


def _level(reading: Reading, arm: ArmNumbers) -> str:
    """One arm's numbers in the words of its kind."""
    n, x = arm.n, arm.x
    if not reading.amount(arm):
        return "none"
    match reading.kind:
        case "proportion":
            return f"{_number(x)}/{_number(n)} ({100 * x / n:.2f} %)"
        case "count_rate":
            return f"{_number(x)} events in {_number(n)} ({x / n:.4g} each)"
        case "ratio":
            return f"{n:.4g}/{x:.4g} ({n / x:.4g})"
        case "quantile":
            return f"{_number(n)} values"
        case "mean" | "distribution":
            return f"{_number(n)} values, mean {x / n:.4g}"


def _number(value: float) -> str:
    """Counts are whole, whether they were just counted or read back."""
    return f"{value:.0f}" if value == int(value) else f"{value:.6g}"
