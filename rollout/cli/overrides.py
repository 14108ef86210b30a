"""`rollout override` and `overrides`: one unit gets a variant for a while."""

import json
from typing import Annotated, Any
from urllib.parse import quote

import typer

from rollout.cli.remote import Api, Refused

Environment = Annotated[str, typer.Option("--environment", "-e", help="The environment.")]


def override(  # noqa: PLR0913 (each is a word or an option of the command)
    flag: str,
    unit: str,
    environment: Environment,
    variant: Annotated[str | None, typer.Argument(metavar="[VARIANT]", help="What the unit gets.")] = None,
    until: Annotated[
        str | None, typer.Option("--for", help="How long, such as 24h, or until which moment; at most 90 days.")
    ] = None,
    end: Annotated[bool, typer.Option("--end", help="End the unit's override now.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is recorded, so name nobody in it.")] = "",
) -> None:
    """Give one unit a variant for a while, or end that. It beats every rule and every rollout; only a kill beats it."""
    path = f"/flags/{quote(flag, safe='')}/overrides/{quote(environment, safe='')}/{quote(unit, safe='')}"
    with Api() as api:
        if end:
            if variant is not None or until is not None:
                raise Refused("--end takes no variant and no --for: it ends what the unit was given")
            api.ask("DELETE", path, query={"reason": reason or None})
            typer.echo(f"{unit} has no override of {flag} in {environment} any more")
            return
        if variant is None or until is None:
            raise Refused("say which variant, and for how long with --for, such as: --for 24h")
        given = api.ask("PUT", path, {"variant": variant, "reason": reason, "expires": until})
    typer.echo(_line(given))


def overrides(
    flag: str,
    environment: Environment,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """List who has an override of a flag: which variant, until when, by whom, and why."""
    with Api() as api:
        found = api.get(f"/flags/{quote(flag, safe='')}/overrides/{quote(environment, safe='')}")
    if as_json:
        typer.echo(json.dumps(found))
    else:
        typer.echo("\n".join(map(_line, found)) or f"nobody has an override of {flag} in {environment}")


def add_to(app: typer.Typer) -> None:
    """Give the application these commands."""
    app.command("override")(override)
    app.command("overrides")(overrides)


def _line(given: dict[str, Any]) -> str:
    what = f"{given['unit']} gets {given['variant']} of {given['flag']} in {given['environment']}"
    return f"{what} until {given['expires_at']}  by {given['actor']}: {given['reason']}"
