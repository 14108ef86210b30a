"""The lines that stay: what this is, each change when it happens, and how it ended."""

import math
import re
from typing import Any

from rollout.demo.course import Course, Took, Track
from rollout.demo.data import correct_rate, questions
from rollout.demo.design import Figure, sentence
from rollout.demo.documents import ramps
from rollout.demo.outcome import CULPRIT, Result
from rollout.demo.screen import Line, Span
from rollout.demo.traffic import SPEED, USERS

WIDTH_OF_NAME = 7
REASON_INDENT = " " * 10
COUNTS = re.compile(r"\d+/(\d+) \(([\d.]+ %)\)")
"""Events and requests with their rate, in a reason."""


def beginning(processes: int) -> list[Line]:
    """What is about to happen."""
    better, worse, baseline = (
        f"{100 * correct_rate(model):.1f} %" for model in ("175b_verification", "6b_finetuning", "175b_finetuning")
    )
    return [
        (),
        (Span(" Rampline ", "done"), Span("  takes an AI feature from a pilot group to everyone,")),
        (Span(f"{'':12}and takes it back by itself when it does harm."),),
        (),
        (Span(f" A maths tutor answers {len(questions()):,} real questions with real models' recorded answers."),),
        (Span(f" {USERS:,} users come and come again, in the rhythm of one hour of a production"),),
        (Span(f" service, {SPEED:.0f} times as fast. Each request is answered for three flags, by one of"),),
        (Span(f" {processes} app processes, and three rollouts run at once:"),),
        (Span("   better ", "bold"), Span(f" from {baseline} correct answers to {better}: must go all the way")),
        (Span("   worse  ", "bold"), Span(f" from {baseline} to {worse}: must be taken back (accepted: 6 points)")),
        (Span("   same   ", "bold"), Span(f" from {baseline} to {baseline}, the same model: must go all the way")),
        (),
    ]  # fmt: skip


def preparing() -> list[Line]:
    """Said while the service starts."""
    return [(Span(" Starting a service, and meanwhile simulating the plans with the true rates ...", "dim"),)]


def started(url: str, figure: Figure) -> list[Line]:
    """Where the service is, and how sure it is that all ends well."""
    return [
        (Span(f" By simulation, {sentence(figure)}.", "dim"),),
        (Span(" The service listens at "), Span(url, "bold")),
        (Span(" Posting the plans and starting the app processes ...", "dim"),),
        (),
    ]


def legend() -> list[Line]:
    """What the evidence in the panel means, with the levels of the plans."""
    levels = ramps()[0].rollout.analysis
    gate, line = levels.alpha_advance, levels.alpha_rollback
    return [
        (Span(" Evidence (natural log; "), Span(f"{-math.log(line):.1f} = 1 in {1 / line:.0f}", "bold"), Span(")")),
        (Span(f"   proof of safety, of correct answers: {-math.log(gate):.1f} opens the gate of the stage"),),
        (Span(f"   of harm, of all guardrails together (weighted mean): {-math.log(line):.1f} takes it back"),),
        (),
    ]


def change(track: Track, transition: dict[str, Any], elapsed: float) -> list[Line]:
    """One transition of a rollout, as it happens."""
    what = transition["change"]
    when = Span(f" {elapsed:5.1f} s  ", "dim")
    name = Span(f"{track.ramp.name:<{WIDTH_OF_NAME}}", "bold")
    reasons = str(what["reason"]).split("; ")
    match what["step"]:
        case "roll_back":
            text = f" ◀◀ ROLLED BACK from {what['from_percentage']:g} % to nobody "
            return [(), (when, name, Span(text, "alarm")), *[_because(each) for each in reasons], ()]
        case "complete":
            text = f" ▶▶ COMPLETED: everybody has {track.ramp.rollout.candidate} "
            return [(when, name, Span(text, "done"))]
        case "advance":
            text = f"▶ {what['from_percentage']:g} % to {what['to_percentage']:g} %"
            return [(when, name, Span(text, "green"), *_inline(reasons))]
        case "start":
            return []
        case other:
            return [(when, name, Span(f"{other}: {what['reason']}", "yellow"))]


def _because(reason: str) -> Line:
    return (Span(REASON_INDENT + COUNTS.sub(r"\2 of \1", reason), "red"),)


def everywhere(track: Track, result: Result) -> Line:
    """How long it took until the last client followed, and how many users were concerned."""
    soon = "never" if result.seconds_to_every_client is None else f"{result.seconds_to_every_client:.2f} s"
    return (
        Span(f"   {track.ramp.name:<{WIDTH_OF_NAME}}", "bold"),
        Span(f"{soon} · {result.users_exposed:,} users had the candidate · {result.decisions} decisions"),
    )


def ending(course: Course, results: dict[str, Result], wrong: list[str], took: Took) -> list[Line]:
    """How all of it ended."""
    lines: list[Line] = [
        (),
        (Span(f" From the deciding observation until all {course.processes} app processes followed:"),),
        *[everywhere(track, results[track.ramp.name]) for track in course.tracks],
        (),
    ]
    if wrong:
        return [*lines, *[(Span(f" {each}", "red"),) for each in wrong]]
    text = f" All three as they must, after {took.seconds:.1f} s and {took.requests:,} requests. "
    return [*lines, (Span(text, "done"),)]


def how_to_look(url: str, key: str, command: str) -> list[Line]:
    """What a person may try while the service goes on; each line can be copied."""
    return [
        (),
        (Span(" The service goes on until you press Ctrl-C. In another terminal:"),),
        (Span(f"   export ROLLOUT_URL={url}", "cyan"),),
        (Span(f"   export ROLLOUT_KEY={key}", "cyan"),),
        (Span(f"   {command} status tutor-worse", "cyan"),),
        (),
    ]


def _inline(reasons: list[str]) -> Line:
    """The rates that opened the gate, without the counts behind them."""
    gate = f"{CULPRIT}: passed: "
    passed = [each.removeprefix(gate) for each in reasons if each.startswith(gate)]
    return tuple(Span("  " + COUNTS.sub(r"\2", each), "dim") for each in passed)
