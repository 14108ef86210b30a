"""The invariants of the control rules, each against the story of a rollout, its recorded looks and who acted."""

from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from rollout.domain.document import duration
from rollout_client.evaluation.ruleset import BUCKETS
from tests.shell.engine.machine.people import may, person
from tests.shell.engine.machine.records import Audited, Json, Look, Record, Step, moment
from tests.shell.engine.machine.story import ENDED, EXPOSED, Story, guardrails

ENGINE = "engine"
OF_ENGINE = {
    "advance",
    "complete",
    "pause",
    "roll_back",
    "step_back",
    "lapse",
    "regain",
    "calibrate",
    "observe",
    "start",
}
"""Steps that the engine may take; it starts only what a person has scheduled."""
DECISIONS = {"advance", "complete", "pause", "roll_back", "step_back"}
"""Steps that carry out what a look decided."""
AUDITED_AS = {"schedule": "start"}
MISSING = {"no_traffic", "no_data", "stale", "error"}
SLACK = 15.0
"""Seconds between two looks at a rollout whose look came too late to be called overdue."""


class Context(NamedTuple):
    """What else is known of the moment: the looks by tick, the audit rows of the step, whether the flag is killed
    or was it before the step, sources that fail, and when the candidate was last proven here.
    """

    looks: dict[int, Look]
    audited: list[Audited]
    killed: bool
    was_killed: bool
    failures: dict[tuple[str, str], int]
    proven_at: datetime | None


def obey(story: Story, step: Step, context: Context) -> None:
    """Every law of one transition, against the story before it."""
    change = step.change
    _follows(story, step, context)
    who = person(change["actor"])
    if who is None:
        _is_the_engines(story, step, context)
    else:
        _is_the_persons(story, step, who, context)
    if step.rises and change["step"] != "step_back":
        assert story.status not in ENDED, f"what has ended rises again: {change}"
        assert not context.was_killed or who is not None or change["step"] == "regain", f"a killed flag rises: {change}"
        assert step.ruleset_revision is not None, f"a rise that no ruleset carries: {change}"


def _follows(story: Story, step: Step, context: Context) -> None:
    """Transitions are numbered without gaps, each begins where the one before it ended, at most one stage on."""
    change = step.change
    assert step.seq == story.seq + 1, f"transition {step.seq} follows {story.seq}"
    before = (change["from_status"], change["from_stage"], change["from_percentage"])
    assert before == (story.status, story.stage, story.percentage), f"not where the one before ended: {change}"
    assert change["to_stage"] - change["from_stage"] <= 1 or change["step"] == "start", f"a stage is skipped: {change}"
    down = change["from_stage"] - change["to_stage"]
    assert (down > 0) == (change["step"] == "step_back"), f"back and no retreat, or a retreat that is none: {change}"
    assert down <= 1, f"a stage is skipped on the way down: {change}"
    if change["step"] == "start" and change["to_stage"] > 0:
        lately = context.proven_at is not None and story.plan.fast_track is not None
        assert lately, f"a fast track without a proof: {change}"
    allowed = {0.0, 100.0} if change["to_status"] == "completed" else {0.0, story.level(max(change["to_stage"], 0))}
    assert change["to_percentage"] in allowed, f"a percentage that the plan does not name: {change}"


def _is_the_persons(story: Story, step: Step, who: str, context: Context) -> None:
    """A person's act is audited; what raises exposure needs the right, and beyond the evidence a reason."""
    name = step.change["step"]
    audits = [row for row in context.audited if row.actor == step.change["actor"]]
    acted = [
        row
        for row in audits
        if row.target == f"rollout:{story.id}" and row.action == f"rollout.{AUDITED_AS.get(name, name)}"
    ]
    switched = [
        row for row in audits if row.target == f"flag:{story.flag}" and row.action in ("flag.kill", "flag.restore")
    ]
    assert acted or (name == "pause" and switched), f"{name} by {who} has no audit row"
    if step.rises:
        assert may(who, "operator"), f"{who} raised exposure without the right: {step.change}"
    beyond = name in ("advance", "complete", "waive") or (name == "resume" and story.breach is not None)
    if beyond:
        assert acted[-1].reason.strip(), f"{name} beyond the evidence without a reason"
    writes, gate = story.wrote(who), story.gate
    if name == "approve":
        assert gate is not None, f"{who} approved what nobody asks for"
        assert may(who, gate.role), f"{who} approved without the right"
        assert not writes, f"{who} approved what they wrote"
    if name in ("advance", "complete", "start") and gate is not None:
        passes = story.approved(step.at) or (may(who, gate.role) and not writes)
        assert passes, f"{who} went past a missing approval: {step.change}"
    if name in ("waive", "revise") and story.status != "draft":
        assert may(who, "operator"), f"{who} may not {name}"


def _is_the_engines(story: Story, step: Step, context: Context) -> None:
    """The engine never undoes a person's act, and what it decides a look has recorded."""
    change, name = step.change, step.change["step"]
    assert change["actor"] == ENGINE, f"somebody unknown: {change}"
    assert name in OF_ENGINE, f"the engine may not {name}"
    _moves_as_its_mode_says(story, step, context)
    if story.paused and change["to_status"] not in ENDED:
        assert change["to_status"] == "paused", f"the engine resumed what was paused: {change}"
    if name == "regain":
        assert story.blind, f"nothing to regain: {change}"
        assert not story.withheld or not step.rises, f"the engine gave back what a kill took: {change}"
        _sees_again(story, step, context)
    elif step.rises and name not in ("start", "step_back"):
        assert name in ("advance", "complete"), f"the engine raised exposure by {name}"
        assert story.status in ("running", "baking"), f"the engine raised {story.status}"
        assert story.breach is None, f"raised in spite of a breach: {change}"
    if name not in DECISIONS:
        return
    assert step.tick in context.looks, f"no look recorded for {change}"
    look = context.looks[step.tick]
    decision = look.outcome["decision"]
    assert decision["kind"] in (name, "roll_back" if name == "step_back" else name), f"decided {decision}, did {name}"
    if name in ("advance", "complete"):
        _gates_were_open(story, step, look)
    else:
        _had_a_cause(story, step, look, context)


def _sees_again(story: Story, step: Step, context: Context) -> None:
    """No source of a guardrail that acts fails still, but for what somebody answers for."""
    failing = {metric for (where, metric), times in context.failures.items() if where == story.environment and times}
    blind = {
        each.metric
        for each in story.plan.guardrails
        if each.metric in failing
        and context.failures[story.environment, each.metric] >= each.error_limit
        and each.on_breach != "warn"
    }
    assert blind <= story.waived(step.at, story.stage), f"regained, but blind is {blind}"


def _moves_as_its_mode_says(story: Story, step: Step, context: Context) -> None:
    """What is scheduled starts at its time and with its approval; what is only observed does not move by itself."""
    change, name = step.change, step.change["step"]
    if name == "start":
        assert story.status == "scheduled", "the engine started a draft"
        assert story.start_at is not None, "started without a time"
        assert step.at >= story.start_at, f"started before its time: {change}"
        assert story.gate is None or story.approved(step.at), "started without its approval"
    if story.observed:
        taken = name in ("start", "observe", "calibrate", "regain") or (name == "pause" and context.killed)
        assert taken, f"an observed rollout moved by itself: {change}"
    assert name != "observe" or story.observed, f"only observed: {change}"


def _gates_were_open(story: Story, step: Step, look: Look) -> None:
    """Time, units, evidence of this stay, every guardrail `pass`, signals, ceilings, sample ratio, approval."""
    plan, stage, judgement = story.plan, story.present, look.outcome["judgement"]
    age = story.age(step.at)
    assert age >= story.shortest() - 1e-3, f"left after {age} s of {story.shortest()}"
    assert not look.inputs["killed"], "advanced on a killed flag"
    waived = story.waived(step.at, story.stage)
    assert judgement["culprit"] in (None, *waived), "advanced on a breach"
    assert not judgement["srm_alarm"], "advanced on a sample ratio alarm"
    readings = {reading["metric"]: reading for reading in judgement["readings"]}
    over = [metric for metric, reading in readings.items() if reading.get("over_ceiling") and metric not in waived]
    assert not over, f"advanced beyond the ceiling of {over}"
    _within_budget(story, waived)
    controlled = story.level(story.stage) < 100.0
    if stage is not None:
        wanted = stage.min_units if stage.min_units is not None else 50 if plan.guardrails else 0
        assert look.inputs["units"] >= wanted, f"{look.inputs['units']} units of {wanted}"
        sent = story.units_in_stage(look.inputs["state"])
        assert look.inputs["units"] <= 1.15 * sent + 3, f"{look.inputs['units']} units, but {sent} were sent"
        assert stage.approval is None or story.approved(step.at), "advanced without the approval"
    late = stage is not None and stage.max_duration and age >= duration(stage.max_duration).total_seconds()
    accepted = {"pass"}
    if stage is None or (late and plan.on_undecided == "advance"):
        accepted.add("undecided")  # a bake is carried by the proof of the last stage
    verdicts = (
        {metric: readings[metric]["verdict"] for metric in guardrails(plan) if metric not in waived}
        if controlled
        else {}
    )
    assert set(verdicts.values()) <= accepted, f"advanced on {verdicts}"
    if verdicts:
        attempt = look.inputs["state"]["attempts"][-1]["id"]
        assert story.sent.get(attempt), f"nothing was ever sent for {attempt}"
    signals = {
        each.metric: readings[each.metric]["verdict"]
        for each in plan.signals
        if controlled and each.metric not in waived
    }
    assert not set(signals.values()) & {"breach", *MISSING}, f"advanced on signals {signals}"


def _within_budget(story: Story, waived: set[str]) -> None:
    """By the failed requests that were sent, which the story sums by itself."""
    for each in story.plan.guardrails:
        most = each.budget.per_stage if each.budget is not None and each.metric == "errors" else None
        spent = story.spent.get((story.stage, each.metric), 0.0)
        assert most is None or spent <= most or each.metric in waived or each.on_breach == "warn", (
            f"advanced with {spent} of {most} {each.metric} spent"
        )


def _had_a_cause(story: Story, step: Step, look: Look, context: Context) -> None:
    """What the engine takes back it takes back for a reason of the plan."""
    code, plan = look.outcome["decision"]["reasons"][0]["code"], story.plan
    match code:
        case "breach":
            assert look.outcome["judgement"]["culprit"] is not None, "no breach was found"
        case "killed":
            assert context.killed, "the flag was not killed"
            assert step.change["to_percentage"] == 0.0, "a killed flag exposes nobody"
        case "missing":
            metric = look.outcome["decision"]["reasons"][0]["metric"]
            verdicts = {each["metric"]: each["verdict"] for each in look.outcome["judgement"]["readings"]}
            (says,) = [each.on_missing for each in plan.guardrails if each.metric == metric]
            policy: Any = says.get(verdicts[metric], "hold") if isinstance(says, dict) else says
            policy = getattr(policy, "then", policy)
            assert look.outcome["decision"]["kind"] == policy, f"the plan says {policy} of {verdicts[metric]}"
        case "budget":
            assert step.change["to_percentage"] == 0.0 or step.change["step"] == "step_back", "a spent budget withholds"
        case "max_duration":
            late = (story.present is not None and story.present.max_duration) or "0s"
            assert plan.on_undecided == "roll_back"
            assert story.age(step.at) >= duration(late).total_seconds() - 1e-3, "before max_duration"


def match_served(story: Story, step: Step, rulesets: Any) -> None:
    """The ruleset that a transition names gives exactly what the transition says."""
    if step.ruleset_revision is None:
        assert step.change["from_percentage"] == step.change["to_percentage"], f"served by no ruleset: {step.change}"
        return
    flag = rulesets(story.environment, step.ruleset_revision)["flags"][story.flag]
    rules = [rule for rule in flag.get("rules", ()) if rule.get("rollout") == story.id]
    ended = step.change["to_status"] in ENDED
    wanted = 0 if ended else round(step.change["to_percentage"] * BUCKETS / 100)
    served = next((rule["threshold"] for rule in rules if rule.get("attempt")), 0)
    assert served == wanted, f"revision {step.ruleset_revision} serves {served}, recorded is {step.change}"
    assert wanted or not any(rule["threshold"] for rule in rules), f"a cohort is still served: {step.change}"
    assert not (ended and rules), f"an ended rollout is still served: {rules}"


def agree(story: Story, record: Record) -> None:
    """The state is what its transitions tell: as many as it has changed."""
    state = record.state
    assert record.revision == story.seq + 1, f"revision {record.revision} after {story.seq} transitions"
    assert (record.status, state["status"], state["stage"]) == (story.status, story.status, story.stage)
    served = record.status in EXPOSED and not state["blind"] and not state["withheld"]
    level = 100.0 if record.status == "completed" else story.level(max(story.stage, 0)) if served else 0.0
    assert level == story.percentage, f"the state serves {level}, its transitions {story.percentage}"
    assert state["blind"] == (story.blind and record.status in EXPOSED)
    assert record.exclusive == (f"{story.flag}@{story.environment}" if record.status in EXPOSED else None)
    if record.revision == story.revision and story.revision:
        assert _served_part(state) == _served_part(story.state), "the state moved without a revision"


def stay_latched(story: Story, record: Record, resumed: bool, waived: int) -> None:
    """A breach stays, word by word, until a person's resume begins a new epoch."""
    state = record.state
    assert state["epoch"] - story.epoch <= 1 or resumed, "an epoch is skipped"
    if story.breach is not None and state["epoch"] == story.epoch:
        assert state["breach"] == story.breach, "a breach was undone"
    if story.epoch and state["epoch"] > story.epoch:
        assert resumed, "a new epoch without a person's resume"
    if state["breach"] is not None and record.status not in ENDED:
        assert record.status == "paused", f"{record.status} in spite of a breach"
    known = {msgspec.json.encode(each) for each in story.state["waivers"]}
    new = [each for each in state["waivers"] if msgspec.json.encode(each) not in known]
    assert len(new) <= waived, f"a waiver that nobody gave: {new}"
    if story.withheld and not state["withheld"]:
        assert resumed or record.status in ENDED, "what a kill took was given back by nobody"


def was_carried_out(story: Story, looks: list[Look], steps: list[Step]) -> None:
    """Each decision to do something is one transition, and no look decides two."""
    done = [step.tick for step in steps if step.change["step"] in DECISIONS and person(step.change["actor"]) is None]
    assert len(done) == len(set(done)), f"one look, two transitions: {done}"
    decided = [look.tick for look in looks if look.outcome["decision"]["kind"] != "hold"]
    observed = [step.tick for step in steps if step.change["step"] == "observe"]
    missing = set(decided) - set(done) - set(observed)
    assert not missing or story.observed, f"{story.id} decided at {decided}, done at {done}"


def share_nothing(records: list[Record], groups: dict[str, str | None]) -> None:
    """Two rollouts of one group, exposed in one environment, own no bucket together."""
    held = [(each.environment, groups[each.id], each.state["slice"]) for each in records if each.status in EXPOSED]
    for i, (environment, group, mine) in enumerate(held):
        for other, name, theirs in held[:i]:
            if group is not None and (other, name) == (environment, group):
                apart = mine["end"] <= theirs["start"] or theirs["end"] <= mine["start"]
                assert apart, f"two rollouts of {group} share units: {mine}, {theirs}"


def may_be_vouched_for(record: Record, story: Story, now: datetime) -> None:
    """Nobody vouches for a leased exposure that no look has seen for its lease, while a look at it was due.

    A clock that was set back may make it due a little later; so long it is vouched for.
    """
    if record.status not in EXPOSED or record.state["blind"] or story.lease is None:
        return
    seen, due = moment(record.protected_at or record.state["started_at"]), moment(record.next_check_at)
    unseen = (now - seen).total_seconds()
    allowed = story.lease + SLACK
    assert unseen < allowed or due > now, f"{story.id} was not seen for {unseen} s and is vouched for"


def _served_part(state: Json) -> Json:
    return {name: value for name, value in state.items() if name not in ("missing", "fed_at", "obstacle")}
