"""What a look found, in sentences for people; each names the numbers behind it."""

from datetime import timedelta

from rollout.domain.judge import ArmNumbers, Reading


def sentence(reading: Reading) -> str:
    """One sentence with the verdict of a metric and the numbers behind it."""
    return f"{reading.metric}: {_says(reading)}"


def _says(reading: Reading) -> str:
    numbers = arms(reading)
    match reading.verdict:
        case "undecided":
            needed = f", about {reading.units_needed:.0f} more candidate requests" if reading.units_needed else ""
            gates = ", ".join(f"{name} {log_e:.2f}" for name, log_e in reading.gates.items())
            shown = gates or f"{reading.log_e_gate:.2f}"
            return f"undecided: {numbers}; gate {shown} < {reading.gate_threshold:.2f}{needed}"
        case "breach":
            return f"worse: {numbers}; evidence of harm {reading.log_e_harm:.2f} >= {reading.harm_threshold:.2f}"
        case "no_traffic":
            return "no request reached this stage lately"
        case "no_data":
            return "requests arrive, but no outcome of this metric; is it observed?"
        case "stale":
            return "requests arrive, but no outcome of this metric lately"
        case "insufficient" if reading.awaits:
            return f"{reading.awaits} more baseline outcomes until its thresholds are frozen; nothing is judged before"
        case "insufficient":
            return f"one arm has no outcome yet: {numbers}"
        case "error":
            return f"its source could not be asked: {reading.source_error}"
        case "pass":
            return f"passed: {numbers}"


def arms(reading: Reading) -> str:
    """What was observed in both arms."""
    said = f"candidate {_level(reading, reading.candidate)}, baseline {_level(reading, reading.baseline)}"
    if reading.beyond is None or reading.threshold is None:
        return said
    candidate, baseline = (f"{100 * share:.2f} %" for share in reading.beyond)
    return f"{said}; beyond {reading.threshold:.4g}: {candidate} and {baseline}"


def _level(reading: Reading, arm: ArmNumbers) -> str:
    """One arm's numbers in the words of its kind."""
    n, x = arm.n, arm.x
    if not reading.amount(arm):
        return "none"
    match reading.kind:
        case "proportion":
            return f"{x}/{n} ({100 * x / n:.2f} %)"
        case "count_rate":
            return f"{x:g} events in {n:g} ({x / n:.4g} each)"
        case "ratio":
            return f"{n:.4g}/{x:.4g} ({n / x:.4g})"
        case "quantile":
            return f"{n:g} values"
        case "mean" | "distribution":
            return f"{n:g} values, mean {x / n:.4g}"


def span(left: timedelta) -> str:
    """A time that is left, as people say it."""
    seconds = max(0.0, left.total_seconds())
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
