"""An environment: where flags are served, each with a ruleset, keys and rollouts of its own."""

from typing import Literal

from rollout.domain.document import Document, Problem, key_problems
from rollout.domain.holdout import Holdout, holdout_problems


class Environment(Document, frozen=True, kw_only=True):
    """An authored environment. The units of its `holdout` are in no rollout."""

    key: str
    kind: Literal["Environment"] = "Environment"
    description: str = ""
    holdout: Holdout | None = None


def environment_problems(environment: Environment) -> list[Problem]:
    """Everything wrong with an environment."""
    return key_problems(environment.key) + holdout_problems(environment.holdout)
