"""`rollout start`, `pause`, `resume`, `advance`, `approve`, `roll-back`, `cancel`: one command for each act."""

from collections.abc import Callable
from typing import Annotated

import typer

from rollout.cli import show
from rollout.cli.choose import Name, Somewhere, for_act
from rollout.cli.remote import Api
from rollout.domain.rollout import ALLOWED, Action

_HELP: dict[Action, str] = {
    "start": "Open a rollout's first stage.",
    "pause": "Stop a rollout where it is.",
    "resume": "Let a paused rollout go on, with fresh evidence.",
    "advance": "Open a rollout's next stage without waiting for its gates.",
    "approve": "Say yes to leaving the present stage; the author of a rollout cannot.",
    "roll_back": "Take the candidate back from everyone, and end the rollout.",
    "cancel": "End a rollout that was never started.",
}
Reason = Annotated[str, typer.Option("--reason", help="Why; it is recorded. Needed when it goes against evidence.")]


def add_to(app: typer.Typer) -> None:
    """Give the application a command for each act that the service knows."""
    for action in ALLOWED:
        app.command(action.replace("_", "-"), help=_HELP[action])(_command(action))


def _command(action: Action) -> Callable[..., None]:
    def act(rollout: Name, environment: Somewhere = None, reason: Reason = "") -> None:
        with Api() as api:
            identifier = for_act(api, rollout, environment, action)
            done = api.ask("POST", f"/rollouts/{identifier}/actions/{action}", {"reason": reason})
            typer.echo(f"{identifier}  {show.change(done['change'])}")
            if action == "start":
                for line in show.meets(api.get(f"/rollouts/{identifier}/status")):
                    typer.echo(line)

    return act
