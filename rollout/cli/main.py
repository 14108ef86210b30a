"""The command line. Everything but `serve` goes over HTTP to ROLLOUT_URL with ROLLOUT_KEY; exit code 1 is a refusal."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import typer
from pydantic import ValidationError

from rollout import __version__
from rollout.cli import acts, overrides, show, trail
from rollout.cli.apply import Wanted
from rollout.cli.apply import apply as bring
from rollout.cli.backtest import ask, lines, wanted
from rollout.cli.choose import Name, Somewhere, newest
from rollout.cli.files import BadFile, read, read_all
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
    role: Annotated[str | None, typer.Option(help="all, api or worker; overrides ROLLOUT_ROLE.")] = None,
) -> None:
    """Run the service until a signal. Settings are the variables ROLLOUT_...; the first start prints an admin key."""
    given = {name: value for name, value in (("host", host), ("port", port), ("role", role)) if value is not None}
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
    rollout: Annotated[
        str | None, typer.Argument(metavar="[ID|FLAG]", help="A rollout's id, or a flag: its newest rollouts.")
    ] = None,
    environment: Somewhere = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Say where a rollout stands: the percentage now, the next change, why it is held, what is still needed.

    Without a name: lists the newest rollouts.
    """
    if rollout is None:
        trail.every(environment=environment, as_json=as_json)
        return
    with Api() as api:
        found = [api.get(f"/rollouts/{name}/status") for name in newest(api, rollout, environment)]
    if as_json:
        typer.echo(json.dumps(found[0] if len(found) == 1 else found))
    else:
        typer.echo("\n\n".join(show.text(each) for each in found))


acts.add_to(app)
trail.add_to(app)
overrides.add_to(app)


@app.command()
def replay(rollout: Name, environment: Somewhere = None) -> None:
    """Make every recorded decision of a rollout again from its log; exit code 1 unless all come out the same."""
    with Api() as api:
        found = {name: api.get(f"/rollouts/{name}/replay") for name in newest(api, rollout, environment)}
    for name, each in found.items():
        made = f"{name}: {each['ticks']} looks made again"
        if each["exact"]:
            typer.echo(f"{made}; every one came out as it was recorded")
        else:
            typer.echo(f"{made}; these came out otherwise: {each['differing']}", err=True)
            if each["foreign"]:
                others = f"{name}: {len(each['foreign'])} of these looks are another version's"
                typer.echo(f"{others}; its numbers may differ in their last digits", err=True)
            if each["misquoted"]:
                typer.echo(f"{name}: these transitions say what no look said: {each['misquoted']}", err=True)
    if not all(each["exact"] for each in found.values()):
        raise SystemExit(1)


@app.command()
def simulate(
    file: Annotated[list[Path], typer.Option("--file", "-f", help="A YAML file; may be given several times.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Say what a plan would do before it starts: false rollbacks, time to the end, time and harm until a rollback.

    The files hold the rollout or the plan, its metrics, and one document of kind Expectation: the traffic, what is true
    of each metric, and the regressions to try. No service is asked.
    """
    from rollout.cli import simulate  # the other commands need not wait for the statistics to be imported

    found = simulate.simulate(read_all(file))
    typer.echo(msgspec.json.encode(found).decode() if as_json else "\n".join(simulate.lines(found)))


@app.command()
def backtest(
    rollout: Name,
    file: Annotated[list[Path], typer.Option("--file", "-f", help="A YAML file; may be given several times.")],
    environment: Somewhere = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Say what another plan would have decided on a rollout's recorded log, beside what was decided.

    The files hold the rollout or the plan to test: other margins, alphas, durations, stages, or guardrails on metrics
    that the log has evidence on.
    """
    body = wanted(file)
    with Api() as api:
        found = [ask(api, name, body) for name in newest(api, rollout, environment)]
    if as_json:
        typer.echo(json.dumps(found[0] if len(found) == 1 else found))
    else:
        typer.echo("\n\n".join("\n".join(lines(each)) for each in found))


@app.command()
def kill(flag: str, environment: Environment, reason: Reason = "") -> None:
    """Serve a flag's default variant to everyone in an environment, now."""
    done = _switch("kill", flag, environment, reason)
    already = " (already)" if done["already"] else ""
    with Api() as api:
        variant = api.get(f"/flags/{flag}")["default_variant"]
        paused = _paused(api, flag, environment)
    typer.echo(f"{flag} is killed in {environment}{already}: everyone gets its default variant, {variant}")
    for each in paused:
        typer.echo(f"{each} is paused, and exposes nobody until it is resumed")


@app.command()
def restore(flag: str, environment: Environment, reason: Reason = "") -> None:
    """End a kill; a rollout that it paused stays paused until it is resumed."""
    _switch("restore", flag, environment, reason)
    typer.echo(f"{flag} is restored in {environment}")
    with Api() as api:
        for each in _paused(api, flag, environment):
            typer.echo(f"{each} stays paused: rollout resume {each}")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def _paused(api: Api, flag: str, environment: str) -> list[str]:
    return [each["id"] for each in api.get("/rollouts", flag=flag, environment=environment, status="paused")]


def _switch(way: str, flag: str, environment: str, reason: str) -> Any:
    with Api() as api:
        return api.ask("POST", f"/flags/{flag}/{way}", {"environment": environment, "reason": reason})


def _refuse(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    raise SystemExit(1)


def main() -> None:
    """Run the command line; refusals are sentences, not tracebacks."""
    try:
        app()
    except (Refused, BadFile) as error:
        _refuse(str(error))
