"""What could not be sent before a process ended, on disk, for the next process to send with the same batch ids.

A file is removed only when each of its batches got its answer, so a process that dies on the way leaves it to yet
another one; the service counts a batch id once. While a process sends a file, it holds a lock on it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from rollout_client import diskfile
from rollout_client.report import Reporter

FORMAT = b"rampline-evidence 1 "
"""A file is this, the SHA-256 of the rest in hex, a line feed, and a JSON array of batches."""
OLDEST = 3 * 86_400.0
"""Seconds that a batch may wait here. A service knows for seven days which ids it has counted."""


class Spooled(msgspec.Struct, frozen=True, array_like=True):
    """One batch as it was to be sent."""

    batch_id: str
    body: bytes
    encoding: str | None
    exposures: int
    observations: int


class Spool:
    """The files of one service and environment in one directory; processes may share it.

    Args:
        directory: where they are.
        identity: the service and the environment.
        limit: bytes of all files together; what does not fit is not kept.
        reporter: told what went wrong.
    """

    def __init__(self, directory: str | os.PathLike[str], identity: str, limit: int, reporter: Reporter) -> None:
        self._directory = Path(directory)
        self._prefix = f"evidence-{diskfile.digest(identity)}-"
        self._limit = limit
        self._reporter = reporter
        self._held: dict[Path, int] = {}
        self._waiting: dict[Path, set[str]] = {}

    def take(self, room: int, now: float, lose: Callable[[Spooled], None]) -> list[Spooled]:
        """Return what earlier processes left, oldest file first, but for what another process is sending.

        Args:
            room: no further file is begun once there are so many batches.
            now: unix seconds.
            lose: told of each batch that is older than `OLDEST` and was removed unsent.
        """
        taken: list[Spooled] = []
        for path in self._files():
            if len(taken) >= room:
                break
            try:
                if self._hold(path):
                    taken += self._read(path, now, lose)
            except FileNotFoundError:  # another process was done with it meanwhile
                self._let_go(path)
            except (OSError, ValueError, RecursionError) as error:
                self._reporter.trouble("spool", f"the evidence kept in {path.name} is lost: {error}")
                self._remove(path)
        return taken

    def settle(self, batch_id: str) -> None:
        """A batch got its answer; the file of which it was the last is removed."""
        for path, waiting in list(self._waiting.items()):
            waiting.discard(batch_id)
            if not waiting:
                self._remove(path)

    def keep(self, batches: Iterable[Spooled]) -> set[str]:
        """Write batches into a new file and return the ids of all that are on disk now."""
        kept = {batch_id for waiting in self._waiting.values() for batch_id in waiting}
        room = self._limit - sum(_size(path) for path in self._files())
        fitting: list[Spooled] = []
        for batch in batches:
            room -= len(batch.body) * 4 // 3 + 200
            if batch.batch_id not in kept and room >= 0:
                fitting.append(batch)
        if fitting:
            path = self._directory / f"{self._prefix}{os.getpid()}-{os.urandom(4).hex()}.json"
            try:
                diskfile.write(path, FORMAT, msgspec.json.encode(fitting))
            except (OSError, ValueError) as error:
                self._reporter.trouble("spool", f"evidence cannot be kept in {self._directory}: {error}")
                return kept
        return kept | {batch.batch_id for batch in fitting}

    def leave(self) -> None:
        """Let go of the files that are not settled; the next process sends them."""
        self._waiting.clear()
        for path in list(self._held):
            self._let_go(path)

    def _files(self) -> list[Path]:
        try:
            found = [path for path in self._directory.iterdir() if path.name.startswith(self._prefix)]
        except (OSError, ValueError):
            return []
        return sorted(found, key=_modified)

    def _read(self, path: Path, now: float, lose: Callable[[Spooled], None]) -> list[Spooled]:
        with os.fdopen(os.dup(self._held[path]), "rb") as file:
            content = file.read()
        batches = msgspec.json.decode(diskfile.check(content, FORMAT), type=list[Spooled])
        if now - _modified(path) > OLDEST:
            for batch in batches:
                lose(batch)
            raise ValueError(f"it waited for more than {OLDEST / 86_400:g} days")
        self._waiting[path] = {batch.batch_id for batch in batches}
        return batches

    def _hold(self, path: Path) -> bool:
        """Lock a file; False when another process, or this one, has it."""
        if path in self._held:
            return False
        number = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        self._held[path] = number
        try:
            import fcntl
        except ImportError:  # no such locks here: two processes may send the same file, and the service counts it once
            return True
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._let_go(path)
            return False
        if not path.exists():  # removed between the opening and the lock
            self._let_go(path)
            return False
        return True

    def _remove(self, path: Path) -> None:
        self._waiting.pop(path, None)
        with suppress(OSError):
            path.unlink(missing_ok=True)
        self._let_go(path)

    def _let_go(self, path: Path) -> None:
        number = self._held.pop(path, None)
        if number is not None:
            with suppress(OSError):
                os.close(number)


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0


def _modified(path: Path) -> float:
    with suppress(OSError):
        return path.stat().st_mtime
    return time.time()
