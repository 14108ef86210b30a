"""The documents of the demonstration: what anybody could post, read from `plans/*.yaml`."""

from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
import yaml

from rollout.domain.flag import Flag
from rollout.domain.plan import RolloutDocument

EXPECTED = {"better": "completed", "worse": "rolled_back", "same": "completed"}
"""The rollouts by the name of their file, and how each must end."""


class Ramp(msgspec.Struct, frozen=True):
    """One rollout with its flag: as documents to post, and decoded."""

    name: str
    flag_document: dict[str, Any]
    rollout_document: dict[str, Any]
    flag: Flag
    rollout: RolloutDocument

    def model_of(self, variant: str) -> str:
        """The model behind a variant."""
        model: str = self.flag.variants[variant]["model"]
        return model


@cache
def shared() -> tuple[dict[str, Any], ...]:
    """The environment, then the metrics."""
    return tuple(_documents("shared"))


@cache
def ramps() -> tuple[Ramp, ...]:
    """The three rollouts in the order in which they are shown."""
    return tuple(_ramp(name) for name in EXPECTED)


def environment() -> str:
    """Key of the environment in which everything runs."""
    key: str = shared()[0]["key"]
    return key


def _ramp(name: str) -> Ramp:
    flag, rollout = _documents(name)
    return Ramp(name, flag, rollout, msgspec.convert(flag, Flag), msgspec.convert(rollout, RolloutDocument))


def _documents(name: str) -> list[dict[str, Any]]:
    text = (files("rollout.demo") / "plans" / f"{name}.yaml").read_text(encoding="utf-8")
    return list(yaml.safe_load_all(text))
