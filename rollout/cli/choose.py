"""Which rollout is meant: people name an id, or the flag."""

from typing import Annotated, Any

import typer

from rollout.cli.remote import Api, Refused
from rollout.domain.rollout import ALLOWED, Action

Name = Annotated[str, typer.Argument(metavar="ID|FLAG", help="A rollout's id, or a flag.", show_default=False)]
Somewhere = Annotated[str | None, typer.Option("--environment", "-e", help="Only this environment.")]


def newest(api: Api, name: str, environment: str | None) -> list[str]:
    """The rollout of this id, or the newest one of a flag in each environment.

    Raises:
        Refused: there is none.
    """
    found: dict[str, str] = {}
    for each in _named(api, name, environment):
        found.setdefault(each["environment"], each["id"])
    return list(found.values())


def for_act(api: Api, name: str, environment: str | None, action: Action) -> str:
    """The rollout of this id, or the only one of a flag on which the act is possible; else its newest one.

    Raises:
        Refused: there is none, or there are several.
    """
    named = _named(api, name, environment)
    able = [each for each in named if each["status"] in ALLOWED[action]]
    if len(able) > 1:
        these = "\n".join(f"  {each['id']}  {each['status']} in {each['environment']}" for each in able)
        raise Refused(f"which one? give an id, or an environment with -e:\n{these}")
    identifier: str = (able or named)[0]["id"]
    return identifier


def _named(api: Api, name: str, environment: str | None) -> list[dict[str, Any]]:
    """Newest first."""
    by_id = api.find(f"/rollouts/{name}") if name.startswith("ro_") else None
    if by_id is not None and environment not in (None, by_id["environment"]):
        raise Refused(f"the rollout {name!r} is in {by_id['environment']}, not in {environment}")
    named: list[dict[str, Any]] = [by_id] if by_id else api.get("/rollouts", flag=name, environment=environment)
    if not named:
        raise Refused(f"there is no rollout {name!r}, and no rollout of a flag {name!r} here")
    return named
