"""What became of it: the public API's last word on every rollout, compared with what must be, as one JSON object."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise

import msgspec

from rollout.demo.course import Course, Took, Track, Traffic
from rollout.demo.design import Figure
from rollout.demo.documents import EXPECTED, environment
from rollout.demo.reports import Flush
from rollout.demo.service import Api

CULPRIT = "answer_correct"
"""The guardrail that must take the worse model back."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How one rollout ended.

    Attributes:
        outcome: its status according to the public API.
        expected: what it must be.
        breached: the guardrail that ended it, None if none did.
        serving: the variant that everybody gets now, according to the public API.
        users_exposed: about how many users ever had the candidate.
        decisions: looks that the engine recorded, each of them a decision.
        changes: those of them that changed something, as `step at percentage`.
        seconds_to_every_client: from the deciding observation until every app process served what follows from it,
            None if one does not. Which observation tipped the scales nobody can tell; it came with the last batch
            that was acknowledged before the decision, and here it is the newest in it (made just before the batch
            was handed to the network).
        seconds_at_most: the same for the oldest in it (made just after the batch before was handed over).
    """

    outcome: str
    expected: str
    breached: str | None
    serving: str | None
    users_exposed: int
    decisions: int
    changes: tuple[str, ...]
    seconds_to_every_client: float | None
    seconds_at_most: float | None


def result(track: Track, traffic: Traffic, processes: int, api: Api) -> Result:
    """Ask the public API once more, and join it with what the app processes saw."""
    status = api.get(f"/rollouts/{track.id}/status")
    transitions = api.get(f"/rollouts/{track.id}/transitions")
    looks = api.get(f"/rollouts/{track.id}/evaluations")
    flag = api.get(f"/flags/{track.ramp.flag.key}/state?environment={environment()}")
    by_look = [transition["change"] for transition in transitions if transition["tick"] is not None]
    changes = [change for change in by_look if change["step"] != "calibrate"]
    decided = datetime.fromisoformat(changes[-1]["at"]).timestamp() if changes else None
    newest, oldest = (None, None) if decided is None else seconds(track, traffic.flushes, processes, decided)
    breach = status["breach"]
    return Result(
        outcome=status["status"],
        expected=EXPECTED[track.ramp.name],
        breached=breach["metric"] if breach else None,
        serving=flag["state"]["released"],
        users_exposed=status["users_exposed"],
        decisions=looks[0]["tick"] if looks else 0,
        changes=tuple(f"{change['step']} at {change['from_percentage']:g} %" for change in changes),
        seconds_to_every_client=newest,
        seconds_at_most=oldest,
    )


def seconds(
    track: Track, flushes: Mapping[int, Sequence[Flush]], processes: int, decided: float
) -> tuple[float | None, float | None]:
    """From the newest and from the oldest observation of the deciding batch to the last client; None if not known."""
    if len(track.settled) < processes:
        return None, None
    last = max(settled.at for settled in track.settled.values())
    deciding: tuple[Flush, float] | None = None
    for mine in flushes.values():
        for before, flush in pairwise((None, *mine)):
            assert flush is not None
            if flush.acknowledged <= decided and (deciding is None or flush.acknowledged > deciding[0].acknowledged):
                deciding = flush, (before or flush).sent
    if deciding is None:
        return None, None
    return round(last - deciding[0].sent, 3), round(last - deciding[1], 3)


def deviations(track: Track, found: Result) -> list[str]:
    """One sentence for everything that is not as it must be."""
    name, plan = track.ramp.name, track.ramp.rollout
    wrong = []
    if found.outcome != found.expected:
        wrong.append(f"{name}: the API reports {found.outcome}; it must be {found.expected}")
    culprit = CULPRIT if found.expected == "rolled_back" else None
    if found.breached != culprit:
        wrong.append(f"{name}: the guardrail that was breached is {found.breached}; it must be {culprit}")
    released = plan.candidate if found.expected == "completed" else plan.baseline
    if found.serving != released:
        wrong.append(f"{name}: everybody is to get {found.serving}; it must be {released}")
    for part, settled in sorted(track.settled.items()):
        if settled.variant != released:
            wrong.append(f"{name}: app process {part} serves {settled.variant}; it must serve {released}")
    if found.seconds_to_every_client is None:
        wrong.append(f"{name}: not every client was seen to serve what follows from the decision")
    return wrong


def summary(course: Course, results: Mapping[str, Result], wrong: Sequence[str], measured: tuple[Figure, Took]) -> str:
    """One JSON object; `measured` is the probability by design, and what the rollouts took."""
    figure, took = measured
    whole = {
        "holds": not wrong,
        "deviations": wrong,
        "rollouts": results,
        "probability": {"estimate": figure.estimate, "at_least": figure.bound, "simulated": figure.replications},
        "seconds": round(took.seconds, 1),
        "requests": took.requests,
        "clients": course.processes,
        "evidence_lost": sum(course.traffic.lost.values()),
    }
    return msgspec.json.encode(whole).decode()
