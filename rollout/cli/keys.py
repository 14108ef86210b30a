"""`rollout keys`: make, list and revoke access keys."""

from typing import Annotated

import typer

from rollout.cli.remote import Api

keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke access keys.")


@keys.command()
def create(
    name: Annotated[str, typer.Option(help="Who uses it; audit rows carry this name.")],
    scope: Annotated[list[str], typer.Option(help="May be given several times: sdk:read, sdk:evidence, viewer, ...")],
    environment: Annotated[str | None, typer.Option("--environment", "-e", help="Only for this environment.")] = None,
) -> None:
    """Make a key and print it; nobody can show it again."""
    with Api() as api:
        made = api.ask("POST", "/keys", {"name": name, "scopes": scope, "environment": environment})
    typer.echo(made["secret"])


@keys.command("list")
def every() -> None:
    """List keys: id, name, environment, scopes, and when they were revoked; never a secret."""
    with Api() as api:
        for key in api.get("/keys"):
            where = key["environment"] or "every environment"
            ended = f"  revoked {key['revoked_at']}" if key["revoked_at"] else ""
            typer.echo(f"{key['id']}  {key['name']}  {where}  {','.join(key['scopes'])}{ended}")


@keys.command()
def revoke(key: str) -> None:
    """Make a key useless."""
    with Api() as api:
        api.ask("DELETE", f"/keys/{key}")
    typer.echo(f"{key} is revoked")
