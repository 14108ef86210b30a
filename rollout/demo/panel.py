"""The live panel: each rollout with its bar, its numbers, its evidence and what it is waiting for."""

from typing import Any

from rollout.demo.course import Course, Track, Traffic
from rollout.demo.screen import Line, Span
from rollout.demo.traffic import SPEED

METER = 10
WATCHED = "answer_correct"


def panel(course: Course, elapsed: float, width: int) -> list[Line]:
    """All rollouts, then the traffic."""
    lines: list[Line] = [()]
    for track in course.tracks:
        lines += [*rollout(track, width), ()]
    return [*lines, *traffic(course.traffic, elapsed)]


def rollout(track: Track, width: int) -> list[Line]:
    """Five lines of one rollout."""
    status, plan = track.status, track.ramp.rollout
    name = Span(f" {track.ramp.name:<7}", "bold")
    what = Span(f"{plan.baseline} → {plan.candidate}", "cyan")
    badge = _badge(status)
    gap = Span(" " * max(1, width - sum(len(span.text) for span in (name, what, badge))))
    reading = next((each for each in status["readings"] if each["metric"] == WATCHED), None)
    return [
        (name, what, gap, badge),
        (Span(" "), *bar(track, width - 8), Span(f"{status['percentage']:5.3g} %", "bold")),
        _numbers(status, reading),
        _evidence(reading),
        (Span(f" {_sentence(track)}", "dim"),),
    ]


def bar(track: Track, width: int) -> Line:
    """Who gets the candidate, with a mark where each stage ends."""
    status = track.status
    full = round(width * status["percentage"] / 100)
    style = {"completed": "green", "rolled_back": "red"}.get(status["status"], "cyan")
    marks = {round(width * stage.percentage / 100) for stage in track.ramp.rollout.stages}
    empty = "".join("┊" if place in marks else "░" for place in range(full, width))
    return (Span("█" * full, style), Span(empty, "red" if style == "red" else "dim"))


def traffic(now: Traffic, elapsed: float) -> list[Line]:
    """How many requests there were, and one of them as its user saw it."""
    rate = now.requests / elapsed if elapsed > 0 else 0.0
    late = f" · {now.behind:.1f} s behind" if now.behind > 1.0 else ""
    said = f"minute {int(elapsed * SPEED // 60)} of the hour · {now.requests:,} requests, {rate:.0f} a second{late}"
    lines: list[Line] = [(Span(f" {elapsed:5.1f} s · {said}", "dim"),)]
    seen = now.exchange
    if seen is not None:
        mark = Span(" ✔", "green") if seen.correct else Span(" ✘", "red")
        lines.append((Span(f" {seen.user}: {' '.join(seen.question.split())}", "dim"),))
        lines.append((Span(f" {seen.model}: ", "dim"), Span(seen.answer), mark))
    return lines


def _badge(status: dict[str, Any]) -> Span:
    match status["status"]:
        case "completed":
            return Span(" COMPLETED ", "done")
        case "rolled_back":
            return Span(" ROLLED BACK ", "alarm")
        case "running":
            return Span(f"stage {status['stage']}", "bold")
        case other:
            return Span(str(other), "bold")


def _numbers(status: dict[str, Any], reading: dict[str, Any] | None) -> Line:
    users = f"{status['users_exposed']:,} users"
    if reading is None:
        return (Span(f" {users}", "dim"),)
    return (
        Span(f" correct: candidate {_rate(reading['candidate'])}, baseline {_rate(reading['baseline'])} · {users}"),
    )


def _rate(numbers: dict[str, int]) -> str:
    n = numbers["n"]
    return f"{100 * numbers['x'] / n:.1f} % of {n:,}" if n else "nothing yet"


def _evidence(reading: dict[str, Any] | None) -> Line:
    if reading is None:
        return (Span(" no evidence yet", "dim"),)
    safe = _meter(reading["log_e_gate"], reading["gate_threshold"], "green")
    harm = _meter(reading["log_e_harm"], reading["harm_threshold"], "red")
    return (Span(" proof of safety "), *safe, Span("    of harm "), *harm)


def _meter(log_e: float, threshold: float, style: str) -> Line:
    """How far evidence has come on its way to its line; evidence against it shows as none."""
    full = round(METER * min(1.0, max(0.0, log_e / threshold)))
    return (
        Span("▰" * full, style),
        Span("▱" * (METER - full), "dim"),
        Span(f" {max(0.0, log_e):.1f}/{threshold:.1f}"),
    )


def _sentence(track: Track) -> str:
    """What it waits for, or how it ended."""
    status = track.status
    if status["status"] == "completed":
        return f"everybody has {track.ramp.rollout.candidate}"
    if status["status"] == "rolled_back":
        why = f": {status['breach']['metric']} breach" if status["breach"] else ""
        return f"everybody is back on {track.ramp.rollout.baseline}{why}"
    held = status["held"]
    if not held:
        return "moves on"
    reading = next((each for each in status["readings"] if each["metric"] == held[0]["metric"]), None)
    if held[0]["code"] != "undecided" or reading is None:
        return str(held[0]["message"])
    needed = reading["units_needed"]
    more = f"; if they are equal, some {needed:,.0f} more candidate requests" if needed else ""
    return f"no proof either way{more}"
