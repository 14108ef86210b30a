"""A status as people read it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

_MOST_MET = 2
"""Rollouts beside this one that are said in full."""


def text(status: dict[str, Any]) -> str:
    """The status of one rollout in a few lines: where it stands, what comes next, why it waits, what was measured."""
    return "\n".join(_lines(status))


def summary(rollout: dict[str, Any]) -> str:
    """One rollout in a line of a list."""
    what = f"{rollout['flag']} {rollout['baseline']} -> {rollout['candidate']} in {rollout['environment']}"
    marks = [f"breach of {rollout['breach']}"] if rollout.get("breach") else []
    marks += ["flag killed"] if rollout.get("killed") else []
    marked = f"  ({', '.join(marks)})" if marks else ""
    return f"{rollout['id']}  {_words(rollout['status']):<11} {rollout['percentage']:>5g} %  {what}{marked}"


def change(made: dict[str, Any]) -> str:
    """One transition: the step, and the statuses and percentages it led from and to."""
    status = _way(_words(made["from_status"]), _words(made["to_status"]))
    share = _way(f"{made['from_percentage']:g} %", f"{made['to_percentage']:g} %")
    return f"{_words(made['step'])}: {status}, {share}"


def verdicts(made: dict[str, Any]) -> list[str]:
    """What the look behind a transition said of each metric; nothing of one recorded by an older service."""
    return [verdict["sentence"] for verdict in made.get("verdicts", [])]


def entry(recorded: dict[str, Any]) -> str:
    """One row of the audit trail."""
    where = f" in {recorded['environment']}" if recorded["environment"] else ""
    detail = recorded["detail"]
    reason = detail.get("reason") if isinstance(detail, dict) else None
    why = f": {reason}" if reason else ""
    return f"{recorded['at']}  {recorded['action']}  {recorded['target']}{where}  by {recorded['actor']}{why}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _way(before: str, after: str) -> str:
    return after if before == after else f"{before} -> {after}"


def _lines(status: dict[str, Any]) -> Iterator[str]:
    what = f"{status['flag']} {status['baseline']} -> {status['candidate']} in {status['environment']}"
    yield f"{status['id']}  {what}"
    doubts = [said for holds, said in _doubts(status) if holds]
    doubt = f" ({', '.join(doubts)})" if doubts else ""
    whose = f" of cohort {status['cohort']}" if status["cohort"] else ""
    share = f"{status['percentage']:g} %{whose} on {status['candidate']}"
    yield f"  now    {status['status']}, stage {status['stage']}, {share}{doubt}{_part(status)}"
    following = status["next_change"]
    if following is not None:
        when = f", not before {following['not_before']}" if _is_to_come(following["not_before"]) else ""
        whole = " of all units" if following["to"] == "completed" and status["reach"] != 100 else ""
        yield f"  next   {following['to']} at {following['percentage']:g} %{whole}{when}"
    for reason in status["held"]:
        yield f"  held   {reason['message']}"
    yield from _soon(status)
    yield from _people(status)
    if status["breach"] is not None:
        breach = status["breach"]
        yield f"  breach {breach['metric']}: evidence {breach['log_e']:.2f} >= {breach['threshold']:.2f}"
    yield from meets(status)
    estimates = {each["metric"]: each for each in status.get("estimates", [])}
    for reading in status["readings"]:
        yield f"  {reading['role']:<9} {reading['metric']}: {reading['verdict']}; {_arms(reading)}"
        if reading["spending"] is not None:
            yield f"            {_spent(reading['spending'], status.get('budgets', {}).get(reading['metric'], {}))}"
        if reading["metric"] in estimates:
            yield from _effect(estimates[reading["metric"]], reading)
    if status.get("overrides"):
        where = f"rollout overrides {status['flag']} -e {status['environment']}"
        yield f"  pinned by override: {status['overrides']} units, whatever the rollout does ({where})"
    yield f"  users  about {status['users_exposed']} had the candidate; {status['transitions']} transitions so far"


def _is_to_come(moment: str | None) -> bool:
    return moment is not None and datetime.fromisoformat(moment) > datetime.now(UTC)


def _doubts(status: dict[str, Any]) -> Iterator[tuple[bool, str]]:
    yield not status["guarded"], "no guardrails: a timed ramp"
    yield status["killed"], "killed"
    yield status["mode"] == "observe", "only observed: nothing moves by itself"
    yield status["guarded"] and not status["proven"], "unproven"


def _soon(status: dict[str, Any]) -> Iterator[str]:
    """What the plan does about evidence that is missing, and when; nothing does so of what is only observed."""
    would = "would " if status["mode"] == "observe" else ""
    for each in status.get("pending", ()):
        what, said = _words(each["then"]), _words(each["verdict"])
        yield f"  soon   {would}{what} at {each['at']}, unless evidence of {each['metric']} comes ({said})"


def _spent(spent: dict[str, Any], budget: dict[str, Any]) -> str:
    """What was spent, each with its limit if it has one."""
    limits = ("per_day", "per_stage")
    of = [f" of {budget[limit]:g}" if budget.get(limit) is not None else "" for limit in limits]
    each = f"; at most {budget['per_request']:g} per request" if budget.get("per_request") is not None else ""
    return f"spent {spent['day']:.6g}{of[0]} today and {spent['stage']:.6g}{of[1]} in this stage{each}"


def _people(status: dict[str, Any]) -> Iterator[str]:
    """What people have to do, have done, or would have had to expect."""
    if status["status"] == "paused" and status["percentage"]:
        share, way = f"{status['percentage']:g} %", f"rollout roll-back {status['id']}"
        yield f"  still  {share} have the candidate; to take it away: {way}"
    last = status["last_change"]
    if last is not None and status["next_change"] is None:
        yield f"  last   {_words(last['step'])} at {last['at']} by {last['actor']}: {last['reason']}"
    if status["awaiting_approval"]:
        yield f"  needs  an approval: rollout approve {status['id']}"
    if status["would"] is not None:
        yield f"  would  {_words(status['would']['kind'])} since {status['would']['at']}: {status['would']['reason']}"
    for waiver in status["waivers"]:
        yield f"  waived {waiver['metric']} by {waiver['by']} until {waiver['expires_at']}: {waiver['reason']}"


def meets(status: dict[str, Any]) -> Iterator[str]:
    """A line for each exposed rollout that this one may meet."""
    shown, more = status["concurrent"][:_MOST_MET], len(status["concurrent"]) - _MOST_MET
    for other in shown:
        yield f"  meets  {other['message']}"
    if more > 0:
        yield f"  meets  {more} more; `rollout status --json` names them"


def _part(status: dict[str, Any]) -> str:
    """Of whom the percentage is, when not every unit takes part."""
    if status["reach"] == 100:
        return ""
    group = f" (group {status['group']})" if status["group"] else ""
    return f"; {status['reach']:.4g} % of the units take part{group}"


def _effect(estimates: dict[str, Any], reading: dict[str, Any]) -> Iterator[str]:
    """How large the effect is, against what is accepted; how much evidence there is; whom it has hurt."""
    found, form = estimates["effect"], estimates["form"]
    if found["lower"] is not None or found["upper"] is not None:
        size = "" if found["estimate"] is None else f" {found['estimate']:.4g}"
        ends = ", ".join("?" if found[end] is None else f"{found[end]:.4g}" for end in ("lower", "upper"))
        wider = reading["gate_margin"]["widening"]
        gate = f", {wider:.3g} times as much at this gate" if wider > 1.0 else ""
        yield f"            {form}{size} [{ends}], accepted {estimates['accepted']:.4g}{gate}"
    if reading["beyond"] is not None:
        candidate, baseline = (f"{100 * share:.2f} %" for share in reading["beyond"])
        yield f"            beyond {reading['threshold']:.4g}: candidate {candidate}, baseline {baseline}"
    harm = f"harm {reading['log_e_harm']:.2f} of {reading['harm_threshold']:.2f}"
    gates = ", ".join(f"{name} {log_e:.2f}" for name, log_e in reading["gates"].items())
    gate = f"gate {gates or format(reading['log_e_gate'], '.2f')} of {reading['gate_threshold']:.2f}"
    needed = reading["units_needed"] if reading["verdict"] == "undecided" else None
    more = "" if needed is None or needed < 1 else f", about {needed:.0f} more candidate requests"
    yield f"            evidence: {harm}, {gate}{more}"
    if estimates["harmed_units"]:
        yield f"            about {estimates['harmed_units']:.0f} users met an event that the baseline spares them"


def _arms(reading: dict[str, Any]) -> str:
    return ", ".join(f"{arm} {_level(reading[arm], reading['kind'])}" for arm in ("candidate", "baseline"))


def _level(numbers: dict[str, float], kind: str) -> str:
    n, x = numbers["n"], numbers["x"]
    if not n:
        return "nothing yet"
    match kind:
        case "proportion":
            return f"{x}/{n} = {100 * x / n:.2f} %"
        case "count_rate":
            return f"{x:g} in {n:g} = {x / n:.4g}"
        case "ratio":
            return f"{n:.4g}/{x:.4g} = {n / x:.4g}" if x else "nothing yet"
        case "quantile":
            return f"{n:g} values"
        case _:
            return f"{n:g} values, mean {x / n:.4g}"
