"""The command line. Everything but `serve` goes over HTTP to ROLLOUT_URL with ROLLOUT_KEY; exit code 1 is a refusal."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError

from rollout import __version__
from rollout.cli import show
from rollout.cli.apply import Wanted
from rollout.cli.apply import apply as bring
from rollout.cli.files import BadFile, read
from rollout.cli.keys import keys
from rollout.cli.remote import Api, Refused
from rollout.errors import RolloutError
from rollout.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Takes an AI feature from a pilot group to everyone, and takes it back by itself when it does harm.",
)
app.add_typer(keys, name="keys")

Environment = Annotated[str, typer.Option("--environment", "-e", help="The environment.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it goes into the audit trail.")]


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; overrides ROLLOUT_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; overrides ROLLOUT_PORT.")] = None,
) -> None:
    """Run the service until a signal. Settings are the variables ROLLOUT_...; the first start prints an admin key."""
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    try:
        settings = Settings(**given)  # type: ignore[arg-type]  # pydantic checks them
    except ValidationError as error:
        lines = [f"ROLLOUT_{'_'.join(map(str, each['loc'])).upper()}: {each['msg']}" for each in error.errors()]
        _refuse("\n".join(lines))
    from rollout.cli.serve import serve as run  # the other commands need not wait for the service to be imported

    try:
        asyncio.run(run(settings))
    except RolloutError as error:
        _refuse(str(error))


@app.command()
def apply(
    file: Annotated[list[Path], typer.Option("--file", "-f", help="A YAML file; may be given several times.")],
    start: Annotated[bool, typer.Option("--start", help="Start the rollouts that are drafts.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Make a rollout anew that has ended with this very plan.")
    ] = False,
) -> None:
    """Create or change what the files say: environments, cohorts, metrics, flags, plans, rollouts.

    A rollout that ended is not made again by itself; exit code 1 when it was taken back.
    """
    documents = read(file)
    well = True
    with Api() as api:
        for said in bring(api, documents, Wanted(start=start, again=again)):
            typer.echo(said.text, err=not said.well)
            well = well and said.well
    if not well:
        raise SystemExit(1)


@app.command()
def status(
    rollout: Annotated[str, typer.Argument(metavar="ID|FLAG", help="A rollout's id, or a flag: its newest rollouts.")],
    environment: Annotated[str | None, typer.Option("--environment", "-e", help="Only this environment.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Say where a rollout stands: the percentage now, the next change, why it is held, what is still needed."""
    with Api() as api:
        found = [api.get(f"/rollouts/{name}/status") for name in _rollouts(api, rollout, environment)]
    if as_json:
        typer.echo(json.dumps(found[0] if len(found) == 1 else found))
    else:
        typer.echo("\n\n".join(show.text(each) for each in found))


@app.command()
def replay(rollout: Annotated[str, typer.Argument(metavar="ID", help="A rollout's id.")]) -> None:
    """Make every recorded decision of a rollout again from its log; exit code 1 unless all come out the same."""
    with Api() as api:
        found = api.get(f"/rollouts/{rollout}/replay")
    if not found["exact"]:
        _refuse(f"{found['ticks']} looks made again; these came out otherwise: {found['differing']}")
    typer.echo(f"{found['ticks']} looks made again; every one came out as it was recorded")


@app.command()
def kill(flag: str, environment: Environment, reason: Reason = "") -> None:
    """Serve a flag's default variant to everyone in an environment, now."""
    _switch("kill", flag, environment, reason)
    typer.echo(f"{flag} is killed in {environment}: everyone gets its default variant")


@app.command()
def restore(flag: str, environment: Environment, reason: Reason = "") -> None:
    """End a kill; a rollout that it paused stays paused until it is resumed."""
    _switch("restore", flag, environment, reason)
    typer.echo(f"{flag} is restored in {environment}")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def _switch(way: str, flag: str, environment: str, reason: str) -> None:
    with Api() as api:
        api.ask("POST", f"/flags/{flag}/{way}", {"environment": environment, "reason": reason})


def _rollouts(api: Api, name: str, environment: str | None) -> list[str]:
    """The rollout of this id, or the newest one of a flag in each environment."""
    if api.find(f"/rollouts/{name}") is not None:
        return [name]
    newest: dict[str, str] = {}
    for each in api.get("/rollouts", flag=name, environment=environment):
        newest.setdefault(each["environment"], each["id"])
    if not newest:
        raise Refused(f"there is no rollout {name!r}, and no rollout of a flag {name!r} here")
    return list(newest.values())


def _refuse(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    raise SystemExit(1)


def main() -> None:
    """Run the command line; refusals are sentences, not tracebacks."""
    try:
        app()
    except (Refused, BadFile) as error:
        _refuse(str(error))
