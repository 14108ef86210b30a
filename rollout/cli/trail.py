"""`rollout list`, `history`, `audit`: what there is, and how it came to be."""

import json
from typing import Annotated

import typer

from rollout.cli import show
from rollout.cli.choose import Name, Somewhere, newest
from rollout.cli.remote import Api

AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]
Newest = Annotated[int, typer.Option("--newest", "-n", min=1, max=200, help="At most so many.")]


def every(
    flag: Annotated[str | None, typer.Argument(metavar="[FLAG]", help="Only of this flag.")] = None,
    environment: Somewhere = None,
    newest: Newest = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest rollouts with their status and percentage."""
    with Api() as api:
        found = api.get("/rollouts", flag=flag, environment=environment)[:newest]
    if as_json:
        typer.echo(json.dumps(found))
    else:
        typer.echo("\n".join(show.summary(each) for each in found) or "there are no rollouts")


def history(rollout: Name, environment: Somewhere = None, as_json: AsJson = False) -> None:
    """Say every change of a rollout, oldest first: from where to where, by whom, why, and what was measured."""
    with Api() as api:
        found = {each: api.get(f"/rollouts/{each}/transitions") for each in newest(api, rollout, environment)}
    if as_json:
        typer.echo(json.dumps(found))
        return
    for identifier, transitions in found.items():
        typer.echo(identifier)
        for each in transitions:
            change = each["change"]
            typer.echo(f"  {change['at']}  {show.change(change)}  by {change['actor']}: {change['reason']}")
            typer.echo("".join(f"    {verdict}\n" for verdict in show.verdicts(change)), nl=False)


def audit(
    target: Annotated[str | None, typer.Option(help="Only of this, such as flag:support-answer.")] = None,
    newest: Newest = 20,
    as_json: AsJson = False,
) -> None:
    """Say who changed what, newest first."""
    with Api() as api:
        found = api.get("/audit", target=target, limit=str(newest))["entries"]
    if as_json:
        typer.echo(json.dumps(found))
    else:
        typer.echo("\n".join(show.entry(each) for each in found) or "nothing was changed")


def add_to(app: typer.Typer) -> None:
    """Give the application these commands."""
    app.command("list")(every)
    app.command("history")(history)
    app.command("audit")(audit)
