"""Files that are whole or not there: written in one step, checked by a checksum when they are read."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path


class Damaged(ValueError):
    """The file is not what was written, or is of another format."""


def write(path: Path, kind: bytes, body: bytes) -> None:
    """Replace a file in one step: a reader sees the old content or the new one, and a full disk keeps the old.

    Only its owner can read it. It is not forced to the platter: what a power cut tears, the checksum finds.

    Args:
        path: where; its folder is made when it is missing.
        kind: what the file begins with; the SHA-256 of the body in hex follows, and a line feed.
        body: the content.

    Raises:
        OSError: it could not be written.
        ValueError: the path cannot be one.
    """
    temporary = path.with_name(f".{path.stem}-{os.getpid()}-{os.urandom(4).hex()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
            file.write(kind + _checksum(body) + b"\n" + body)
        temporary.replace(path)
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)
        raise


def check(content: bytes, kind: bytes) -> bytes:
    """Return the body of a file's content.

    Raises:
        Damaged: it is none.
    """
    head, _, body = content.partition(b"\n")
    if head != kind + _checksum(body):
        raise Damaged("is damaged or of another format")
    return body


def digest(identity: str) -> str:
    """Return a name for what files are of: a service and an environment."""
    return hashlib.sha256(identity.encode()).hexdigest()[:24]


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()
