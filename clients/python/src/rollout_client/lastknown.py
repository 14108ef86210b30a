"""The last ruleset that was served, on disk, so that a start without the service still knows what to answer."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import msgspec

from rollout_client.evaluation.ruleset import Ruleset
from rollout_client.report import Reporter

FORMAT = b"rampline-ruleset 1 "
"""A file is this, the SHA-256 of the rest in hex, a line feed, and the ruleset as JSON."""


class Cache:
    """The file of one service and environment; clients and processes may share a directory."""

    def __init__(self, directory: str | os.PathLike[str], identity: str, reporter: Reporter) -> None:
        self._path = Path(directory) / f"ruleset-{hashlib.sha256(identity.encode()).hexdigest()[:24]}.json"
        self._reporter = reporter

    def load(self) -> Ruleset | None:
        """Return the ruleset that was kept, None when there is none or when the file is damaged in any way."""
        try:
            head, _, body = self._path.read_bytes().partition(b"\n")
            if head == FORMAT + _checksum(body):
                return msgspec.json.decode(body, type=Ruleset)
            said = "is damaged or of another format"
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            said = f"cannot be read: {error}"
        self._reporter.trouble("cache", f"the ruleset kept in {self._path.name} {said}; it is ignored")
        return None

    def save(self, ruleset: Ruleset) -> None:
        """Replace the file in one step: a reader sees the old ruleset or the new one, and a full disk keeps the old.

        Only its owner can read it, since overrides and cohorts list units.
        It is not forced to the platter: what a power cut tears, the checksum finds.
        """
        body = msgspec.json.encode(ruleset)
        temporary = self._path.with_name(f".{self._path.stem}-{os.getpid()}-{os.urandom(4).hex()}")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
                file.write(FORMAT + _checksum(body) + b"\n" + body)
            temporary.replace(self._path)
        except (OSError, ValueError) as error:  # a ValueError is a path that cannot be one
            self._reporter.trouble("cache", f"the ruleset cannot be kept in {self._path.parent}: {error}")
            with suppress(OSError, ValueError):
                temporary.unlink(missing_ok=True)


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()
