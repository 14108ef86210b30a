"""The ruleset that an application brings along, for a start without service and cache."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import msgspec

from rollout_client.evaluation.ruleset import Ruleset
from rollout_client.report import Reporter

Bootstrap = Mapping[str, Any] | str | os.PathLike[str]


def read_bootstrap(bootstrap: Bootstrap, reporter: Reporter) -> Ruleset | None:
    """Return the ruleset of a document or a file (the body of a ruleset answer), None when it cannot be read."""
    try:
        if isinstance(bootstrap, Mapping):
            return msgspec.convert(bootstrap, Ruleset)
        with open(bootstrap, "rb") as file:  # noqa: PTH123 (pathlib would cost every import of the client)
            return msgspec.json.decode(file.read(), type=Ruleset)
    except (OSError, TypeError, ValueError, RecursionError) as error:
        reporter.trouble("bootstrap", f"the bootstrap ruleset cannot be read: {error}")
        return None
