"""The last ruleset that was served, on disk, so that a start without the service still knows what to answer."""

from __future__ import annotations

import os
from pathlib import Path

from rollout_client import diskfile
from rollout_client.evaluation import lines
from rollout_client.evaluation.ruleset import Ruleset
from rollout_client.native import pause
from rollout_client.report import Reporter

FORMAT = b"rampline-ruleset 1 "
"""A file is this, the SHA-256 of the rest in hex, a line feed, and the ruleset as JSON."""


class Cache:
    """The file of one service and environment; clients and processes may share a directory."""

    def __init__(self, directory: str | os.PathLike[str], identity: str, reporter: Reporter) -> None:
        self._path = Path(directory) / f"ruleset-{diskfile.digest(identity)}.json"
        self._reporter = reporter

    def load(self) -> Ruleset | None:
        """Return the ruleset that was kept, None when there is none or when the file is damaged in any way."""
        try:
            return lines.decode(diskfile.check(self._path.read_bytes(), FORMAT), pause)
        except FileNotFoundError:
            return None
        except diskfile.Damaged as error:
            said = str(error)
        except (OSError, ValueError, RecursionError) as error:
            said = f"cannot be read: {error}"
        self._reporter.trouble("cache", f"the ruleset kept in {self._path.name} {said}; it is ignored")
        return None

    def save(self, ruleset: Ruleset) -> None:
        """Keep a ruleset in the place of the former; overrides and cohorts list units, so only the owner reads it."""
        try:
            diskfile.write(self._path, FORMAT, lines.encode(ruleset, pause))
        except (OSError, ValueError) as error:  # a ValueError is a path that cannot be one
            self._reporter.trouble("cache", f"the ruleset cannot be kept in {self._path.parent}: {error}")
