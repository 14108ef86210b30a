"""What must hold after it all, by the database, the applications and the watcher; each fault is a sentence."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec

from rollout_client.evaluation import lines
from rollout_client.evaluation.evidence import ArmIncrement, MetricIncrement
from rollout_client.evaluation.ruleset import BUCKETS, RolloutRule
from tests.chaos.course import ENDED, Run
from tests.chaos.fleet import Fleet, seconds_up
from tests.chaos.watcher import RULESETS, TRANSITIONS, Sight, Watcher

WITHIN = 5.0
"""Seconds of an engine being up in which harm must be acted on."""
_cells = msgspec.json.Decoder(dict[int, MetricIncrement])
_orphans = msgspec.json.Decoder(dict[str, dict[str, ArmIncrement]])


@dataclass(frozen=True)
class Transition:
    """A row of the transitions, as far as it matters here."""

    seq: int
    step: str
    to_status: str
    percentage: float
    revision: int | None
    tick: int | None


@dataclass
class Findings:
    """`faults` by claim, each with a sentence; an empty list is what is hoped for."""

    faults: dict[str, list[str]]
    delays: list[float]
    counts: dict[str, int]


def find(connection: Any, fleet: Fleet, runs: list[Run], watcher: Watcher, told: list[dict[str, Any]]) -> Findings:
    """Everything, once nothing moves any more."""
    recorded: dict[str, list[Transition]] = defaultdict(list)
    rows = connection.execute(TRANSITIONS).fetchall()
    for rollout, seq, change, revision, tick in rows:
        made = json.loads(change)
        recorded[rollout].append(
            Transition(seq, made["step"], made["to_status"], made["to_percentage"], revision, tick)
        )
    documents = {revision: bytes(document) for revision, document in connection.execute(RULESETS)}
    spans = {run.id: span for run in runs if (span := _span(connection, run, recorded, watcher)) is not None}
    delays = {
        rollout: seconds_up(watcher.fleet.engines, *span, watcher.cluster.down) for rollout, span in spans.items()
    }
    counted, orphans_alive = _counted(connection)
    faults = {
        "decisions lost, doubled or altered": [*_decisions(recorded, rows, watcher), *_lost(documents, watcher)],
        "rollouts that did not end once, and as they must": _ends(runs, recorded),
        "rulesets served that are not what is recorded, or went back": _served(documents, watcher),
        "exposure above the recorded stage": [*_exposure(documents, recorded), *_seen(recorded, runs, told)],
        f"rollbacks later than {WITHIN:g} s after their evidence, engine up": [
            f"{rollout}: {delay:.1f} s with an engine up between {spans[rollout][0]:.1f} and {spans[rollout][1]:.1f}"
            for rollout, delay in delays.items()
            if delay > WITHIN
        ],
        "requests lost or counted twice": _requests(counted, told),
        "orphans of an attempt that was running": orphans_alive,
        "rollouts whose replay is not exact": _replays(fleet, runs),
    }
    counts = {
        "transitions": len(rows),
        "rulesets": len(documents),
        "requests": sum(number for key, number in counted.items() if key.endswith(" n")),
    }
    return Findings(faults, sorted(delays.values()), counts)


def _decisions(
    recorded: Mapping[str, list[Transition]], rows: list[tuple[Any, ...]], watcher: Watcher
) -> Iterable[str]:
    for rollout, found in recorded.items():
        if [each.seq for each in found] != list(range(1, len(found) + 1)):
            yield f"{rollout}: transitions {[each.seq for each in found]}"
    now = {(rollout, seq): rest for rollout, seq, *rest in rows}
    for key, rest in watcher.transitions.items():
        if now.get(key) != rest:
            yield f"{key}: {rest} was recorded, {now.get(key)} is"


def _lost(documents: Mapping[int, bytes], watcher: Watcher) -> Iterable[str]:
    for revision, document in watcher.rulesets.items():
        if documents.get(revision) != document:
            yield f"ruleset {revision} is another than was recorded"


def _ends(runs: list[Run], recorded: Mapping[str, list[Transition]]) -> list[str]:
    faults = []
    for run in runs:
        ends = [each.step for each in recorded[run.id] if each.to_status in ENDED]
        if ends != ["roll_back" if run.harmful else "complete"]:
            faults.append(f"{run.id} on {run.flag}, harmful: {run.harmful}, ended by {ends}, says {run.ended}")
    return faults


def _served(documents: Mapping[int, bytes], watcher: Watcher) -> list[str]:
    faults = []
    for name, served in watcher.served.items():
        revisions = [int(tag.partition(".")[0]) for _, tag, _ in served]
        faults += [f"{name} went from {one} to {next_one}" for one, next_one in pairwise(revisions) if next_one < one]
        faults += [
            f"{name} served {tag}, which is not what is recorded"
            for _, tag, body in served
            if documents.get(int(tag.partition(".")[0])) != body
        ]
    return faults


def _exposure(documents: Mapping[int, bytes], recorded: Mapping[str, list[Transition]]) -> Iterable[str]:
    """The threshold of each rule against the percentage that was recorded last, up to its ruleset."""
    for revision, document in documents.items():
        for key, flag in lines.decode(document).flags.items():
            for rule in flag.rules:
                if not isinstance(rule, RolloutRule):
                    continue
                most = _recorded(recorded[rule.rollout], revision)
                if rule.threshold > most:
                    yield f"ruleset {revision}: {key} exposes {rule.threshold}, recorded is {most}"


def _seen(recorded: Mapping[str, list[Transition]], runs: list[Run], told: list[dict[str, Any]]) -> Iterable[str]:
    """The highest bucket that an application served a candidate, against what was recorded for its ruleset."""
    for one in told:
        for place, highest in one["highest"].items():
            revision, flag = place.split(" ")
            most = max(_recorded(recorded[run.id], int(revision)) for run in runs if run.flag == flag)
            if highest >= most:
                yield f"an application at {revision} served bucket {highest} of {flag}, recorded is {most}"


def _recorded(found: list[Transition], revision: int) -> int:
    """How many buckets a rollout may expose in a ruleset; 0 once it has ended: all have what was released."""
    until = [each for each in found if each.revision is not None and each.revision <= revision]
    if not until or until[-1].to_status in ENDED:
        return 0
    return round(until[-1].percentage * BUCKETS / 100)


def _counted(connection: Any) -> tuple[Counter[str], list[str]]:
    """Requests and failures by attempt and arm, in the log and among the orphans; and orphans that should be none."""
    counted: Counter[str] = Counter()

    def count(place: str, increment: MetricIncrement) -> None:
        for n, x in increment.cells.values():
            counted[f"{place} n"] += int(n)
            counted[f"{place} x"] += int(x)

    log = "SELECT attempt, arm, body FROM increments WHERE metric = 'error_rate'"
    for attempt, arm, body in connection.execute(log):
        for increment in _cells.decode(body).values():
            count(f"{attempt} {arm}", increment)
    # A batch waits for the look that ends its rollout for as long as it waits for a lock: 8 s.
    running = """SELECT a.id FROM attempts a JOIN rollouts r ON r.id = a.rollout
                 WHERE r.ended_at IS NULL OR r.ended_at > %s + interval '8 seconds'"""
    faults = []
    for body, received_at in connection.execute("SELECT body, received_at FROM orphans").fetchall():
        alive = {row[0] for row in connection.execute(running, (received_at,))}
        for attempt, arms in _orphans.decode(body).items():
            if attempt in alive:
                faults.append(f"{attempt} was running when its increments came")
            for arm, held in arms.items():
                for slot in held.slots.values():
                    count(f"{attempt} {arm}", slot.metrics.get("error_rate", MetricIncrement()))
    return +counted, faults


def _requests(counted: Counter[str], told: list[dict[str, Any]]) -> list[str]:
    theirs: Counter[str] = Counter()
    for one in told:
        theirs.update(one["counted"])
    lost = [f"an application dropped {one['dropped']}" for one in told if any(one["dropped"].values())]
    lost += [f"an application has {one['pending']} batches left" for one in told if one["pending"]]
    both = sorted((+theirs).keys() | counted.keys())
    return lost + [
        f"{key}: {theirs[key]} in applications, {counted[key]} counted" for key in both if theirs[key] != counted[key]
    ]


def _replays(fleet: Fleet, runs: list[Run]) -> list[str]:
    found = {run.id: fleet.ask("GET", f"rollouts/{run.id}/replay").json() for run in runs}
    return [f"{rollout}: {each}" for rollout, each in found.items() if not each.get("exact")]


def _span(
    connection: Any, run: Run, recorded: Mapping[str, list[Transition]], watcher: Watcher
) -> tuple[float, float] | None:
    """When the first batch that the deciding look took in was accepted, and when the rollback was seen (unix seconds).

    That batch may have come before the one that decided, so the time between them is an upper bound.
    """
    ends = [each for each in recorded[run.id] if each.step == "roll_back"]
    if not ends or ends[0].tick is None:
        return None
    look = "SELECT from_seq FROM evaluations WHERE rollout = %s AND tick = %s"
    [(from_seq,)] = connection.execute(look, (run.id, ends[0].tick)).fetchall()
    sights: list[Sight] = watcher.sights[run.id]
    accepted = next((each.at for each in sights if each.accepted > from_seq), None)
    ended = next((each.at for each in sights if each.status == "rolled_back"), None)
    return None if accepted is None or ended is None else (accepted, ended)
