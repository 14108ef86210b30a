"""The live panel: each rollout with its bar, its numbers, its evidence and what it is waiting for."""

import math
from typing import Any

from rollout.demo.course import Course, Track, Traffic
from rollout.demo.screen import Line, Span
from rollout.demo.traffic import SPEED
from rollout.stats.combine import log_weighted_mean

METER = 10
WATCHED = "answer_correct"


def panel(course: Course, elapsed: float, width: int, rows: int) -> list[Line]:
    """All rollouts, then the traffic, in at most `rows` lines: first blank lines go, then rollouts, which is said."""
    each = [rollout(track, width) for track in course.tracks]
    below = traffic(course.traffic, elapsed)
    roomy = [(), *(line for lines in each for line in (*lines, ())), *below]
    if len(roomy) <= rows:
        return roomy
    full = sum(map(len, each)) + 1
    if full <= rows:
        return [*(line for lines in each for line in lines), *below][:rows]
    return _cramped(course.tracks, each, rows, full)


def _cramped(tracks: list[Track], each: list[list[Line]], rows: int, full: int) -> list[Line]:
    """As many rollouts as fit, those that still run first, and which are hidden."""
    room = max(0, rows - 1) // max(map(len, each))
    shown = sorted(sorted(range(len(tracks)), key=lambda place: tracks[place].ended)[:room])
    hidden = [track.ramp.name for place, track in enumerate(tracks) if place not in shown]
    said = f" hidden: {', '.join(hidden)}; {full + 1} lines show all"
    return [*(line for place in shown for line in each[place]), (Span(said, "yellow"),)]


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
        _numbers(track, reading),
        _evidence(track, reading),
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


def _numbers(track: Track, reading: dict[str, Any] | None) -> Line:
    users = f"{track.status['users_exposed']:,} users"
    if reading is None:
        return (Span(f" {users}", "dim"),)
    if track.just_begun and (track.age <= 0.0 or not reading["candidate"]["n"]):  # else of the stage before
        return (Span(f" correct: counted anew in each stage · {users}"),)
    return (
        Span(f" correct: candidate {_rate(reading['candidate'])}, baseline {_rate(reading['baseline'])} · {users}"),
    )


def _rate(numbers: dict[str, int]) -> str:
    n = numbers["n"]
    return f"{100 * numbers['x'] / n:.1f} % of {n:,}" if n else "nothing yet"


def _evidence(track: Track, reading: dict[str, Any] | None) -> Line:
    if reading is None:
        return (Span(" no evidence yet", "dim"),)
    proof = 0.0 if leans_to_harm(reading) else reading["log_e_gate"]
    safe = _meter(proof, reading["gate_threshold"], "green")
    line = -math.log(track.ramp.rollout.analysis.alpha_rollback)
    harm = _meter(harm_of_all(track), line, "red")
    return (Span(" proof of safety "), *safe, Span("    of harm "), *harm)


def leans_to_harm(reading: dict[str, Any]) -> bool:
    """Whether it speaks for harm now. The gate's evidence is the best of its stage and may be of luckier moments."""
    return bool(reading["verdict"] != "pass" and round(reading["log_e_harm"], 1) > 0.0)


def harm_of_all(track: Track) -> float:
    """The number that decides about a rollback: the weighted mean of the guardrails' evidence of harm, as a log."""
    weights = {guardrail.metric: float(guardrail.weight) for guardrail in track.ramp.rollout.guardrails}
    mine = [reading for reading in track.status["readings"] if reading["metric"] in weights]
    return log_weighted_mean([each["log_e_harm"] for each in mine], [weights[each["metric"]] for each in mine])


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
    if track.just_begun:
        return f"stage {status['stage']} has just begun"
    held = status["held"]
    if not held:
        return "moves on"
    reading = next((each for each in status["readings"] if each["metric"] == held[0]["metric"]), None)
    if held[0]["code"] != "undecided" or reading is None:
        return str(held[0]["message"])
    if leans_to_harm(reading):
        return "no proof either way; at present it looks worse than accepted"
    needed = reading["units_needed"]
    count = "a few" if needed and needed < 10 else f"some {needed or 0:,.0f}"
    more = f"; if they are equal, {count} more candidate requests" if needed else ""
    return f"no proof either way{more}"
