"""A status as people read it."""

from collections.abc import Iterator
from typing import Any


def text(status: dict[str, Any]) -> str:
    """The status of one rollout in a few lines: where it stands, what comes next, why it waits, what was measured."""
    return "\n".join(_lines(status))


def _lines(status: dict[str, Any]) -> Iterator[str]:
    what = f"{status['flag']} {status['baseline']} -> {status['candidate']} in {status['environment']}"
    yield f"{status['id']}  {what}"
    doubts = [] if status["guarded"] else ["no guardrails: a timed ramp"]
    doubts += ["killed"] if status["killed"] else []
    doubts += ["unproven"] if status["guarded"] and not status["proven"] else []
    doubt = f" ({', '.join(doubts)})" if doubts else ""
    share = f"{status['percentage']:g} % on {status['candidate']}"
    yield f"  now    {status['status']}, stage {status['stage']}, {share}{doubt}"
    following = status["next_change"]
    if following is not None:
        when = f", not before {following['not_before']}" if following["not_before"] else ""
        yield f"  next   {following['to']} at {following['percentage']:g} %{when}"
    for reason in status["held"]:
        yield f"  held   {reason['message']}"
    if status["awaiting_approval"]:
        yield "  needs  an approval: POST .../actions/approve with a key of the scope 'approver'"
    if status["breach"] is not None:
        breach = status["breach"]
        yield f"  breach {breach['metric']}: evidence {breach['log_e']:.2f} >= {breach['threshold']:.2f}"
    for reading in status["readings"]:
        yield f"  {reading['role']:<9} {reading['metric']}: {reading['verdict']}; {_arms(reading)}"
    yield f"  users  about {status['users_exposed']} had the candidate; {status['transitions']} transitions so far"


def _arms(reading: dict[str, Any]) -> str:
    return ", ".join(f"{arm} {_share(reading[arm])}" for arm in ("candidate", "baseline"))


def _share(numbers: dict[str, int]) -> str:
    n, x = numbers["n"], numbers["x"]
    return f"{x}/{n} = {100 * x / n:.2f} %" if n else "nothing yet"
