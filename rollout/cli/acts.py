"""`rollout start`, `pause`, `resume`, `advance`, `approve`, `waive`, `roll-back`, `complete`, `cancel`: an act each."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from rollout.cli import show
from rollout.cli.choose import Name, Somewhere, for_act
from rollout.cli.remote import Api
from rollout.domain.rollout import ALLOWED, Action

_HELP: dict[Action, str] = {
    "start": "Open a rollout's first stage, or at the time that its plan says.",
    "pause": "Stop a rollout where it is.",
    "resume": "Let a paused rollout go on; after a breach, with fresh evidence.",
    "advance": "Open a rollout's next stage without waiting for its gates.",
    "approve": "Say yes to the start or to leaving the present stage; the author of a rollout cannot.",
    "roll_back": "Take the candidate back from everyone, and end the rollout.",
    "complete": "Give everyone the candidate without waiting for the rest, and end the rollout.",
    "cancel": "End a rollout that was never started.",
}
Reason = Annotated[str, typer.Option("--reason", help="Why; it is recorded. Needed when it goes against evidence.")]


def add_to(app: typer.Typer) -> None:
    """Give the application a command for each act that the service knows."""
    for action in ALLOWED:
        if action == "waive":
            app.command("waive")(waive)
        else:
            app.command(action.replace("_", "-"), help=_HELP[action])(_command(action))


def waive(
    rollout: Name,
    metric: Annotated[str, typer.Argument(help="The guardrail or signal that is not to act or to hold.")],
    expires: Annotated[str, typer.Option("--for", help="How long the waiver stands, such as 24h.")],
    reason: Reason = "",
    stage: Annotated[str | None, typer.Option(help="In which stage; the present one unless said.")] = None,
    environment: Somewhere = None,
) -> None:
    """Answer for it that one metric closes no gate and acts on no breach in one stage, for a while.

    While it stands the stage may be left, so more people may get the candidate.
    """
    _ask(rollout, environment, "waive", {"reason": reason, "metric": metric, "expires": expires, "stage": stage})


def _command(action: Action) -> Callable[..., None]:
    def act(rollout: Name, environment: Somewhere = None, reason: Reason = "") -> None:
        _ask(rollout, environment, action, {"reason": reason})

    return act


def _ask(rollout: str, environment: str | None, action: Action, body: dict[str, Any]) -> None:
    with Api() as api:
        identifier = for_act(api, rollout, environment, action)
        done = api.ask("POST", f"/rollouts/{identifier}/actions/{action}", body)
        met = show.meets(api.get(f"/rollouts/{identifier}/status")) if action == "start" else ()
        typer.echo("\n".join([f"{identifier}  {show.change(done['change'])}", *met]))
