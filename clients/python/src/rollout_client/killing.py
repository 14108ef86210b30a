"""Flags killed in this process, whatever the service says: named in the environment, or in a file that is watched."""

from __future__ import annotations

import os

from rollout_client.report import Reporter

KILL_VARIABLE = "RAMPLINE_KILL"
"""Flags that are killed in this process, separated by commas."""
KILL_FILE_VARIABLE = "RAMPLINE_KILL_FILE"
"""A file that names such flags, read again every second; `Options(kill_file=...)` comes before it."""


def killed_here() -> frozenset[str]:
    """Return the flags that the environment kills."""
    return frozenset(_names(os.environ.get(KILL_VARIABLE, "")))


class KillFile:
    """The file, by commas or line by line; what follows a # is a comment. One that is not there kills nothing."""

    def __init__(self, path: str | os.PathLike[str] | None, reporter: Reporter) -> None:
        self.path = path or os.environ.get(KILL_FILE_VARIABLE)
        self._reporter = reporter
        self._named: frozenset[str] = frozenset()

    def killed(self) -> frozenset[str]:
        """Return what the environment and the file kill now; what the file said before when it cannot be read."""
        if self.path:
            try:
                with open(self.path, encoding="utf-8") as file:  # noqa: PTH123  (pathlib would be imported for it)
                    lines = file.read().splitlines()
                self._named = frozenset(name for line in lines for name in _names(line.partition("#")[0]))
            except FileNotFoundError:
                self._named = frozenset()
            except (OSError, ValueError) as error:  # a ValueError is a path that cannot be one, or no text
                said = f"{os.fspath(self.path)} cannot be read ({type(error).__name__}); it kills what it killed before"
                self._reporter.trouble("kill-file", said)
        return killed_here() | self._named


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
