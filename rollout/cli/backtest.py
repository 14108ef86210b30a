"""`rollout backtest`: what another plan, from a file, would have decided on the log of a rollout that has run."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from rollout.cli.files import BadFile, read
from rollout.cli.remote import Api
from rollout.domain.plan import Plan, RolloutDocument


def wanted(paths: Sequence[Path]) -> dict[str, Any]:
    """The body of the request: the one rollout among the documents of the files, or else the one plan.

    Raises:
        BadFile: there is neither, or there are several.
    """
    documents = read(paths)
    for name, kind in (("rollout", RolloutDocument), ("plan", Plan)):
        found = [each for each in documents if isinstance(each, kind)]
        if len(found) == 1:
            return {name: msgspec.to_builtins(found[0])}
        if found:
            raise BadFile(f"give one {name} to test; the files have {len(found)}")
    raise BadFile("the files have no document of kind Rollout or Plan")


def ask(api: Api, rollout: str, body: dict[str, Any]) -> Any:
    """The service's answer; it may take a minute."""
    return api.ask("POST", f"/rollouts/{rollout}/backtest", body, patience=90.0)


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The backtest as people read it."""
    yield f"{found['rollout']}: {found['looks']} looks taken again"
    for title, course in (("as recorded", found["recorded"]), ("under this plan", found["backtest"])):
        yield f"{title}: {_end(course)}"
        for each in course["decisions"]:
            yield (
                f"  {each['at']}  {each['step']} in {each['stage']} -> {each['percentage']:g} %, "
                f"after {each['requests']:,} requests to the candidate: {each['reason']}"
            )
    for each in found["unknown"]:
        yield f"not known: {each}"


def _end(course: dict[str, Any]) -> str:
    requests = f"{course['requests']:,} requests to the candidate"
    if course["ended"] == "running":
        return f"still in stage {course['stage']} when the log ended, {requests}"
    return f"{course['ended'].replace('_', ' ')}, {requests}"
