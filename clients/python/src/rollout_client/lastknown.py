"""The last ruleset that was served, on disk, so that a start without the service still knows what to answer."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from rollout_client.evaluation.ruleset import Ruleset
from rollout_client.report import Reporter

FORMAT = b"rampline-ruleset 1 "
"""A file is this, the SHA-256 of the rest in hex, a line feed, and the ruleset as JSON."""

_decoder = msgspec.json.Decoder(Ruleset)


def cache_file(directory: str | os.PathLike[str], url: str, environment: str) -> Path:
    """Return the file of one service and environment; several clients may share a directory."""
    name = hashlib.sha256(f"{url}\n{environment}".encode()).hexdigest()[:24]
    return Path(directory) / f"ruleset-{name}.json"


def load_cache(path: Path, reporter: Reporter) -> Ruleset | None:
    """Return the ruleset of a cache file, None when there is none or when it is damaged in any way."""
    try:
        head, _, body = path.read_bytes().partition(b"\n")
        if head != FORMAT + hashlib.sha256(body).hexdigest().encode():
            reporter.trouble("cache", f"the ruleset kept in {path.name} is damaged or of another format; it is ignored")
            return None
        return _decoder.decode(body)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        reporter.trouble("cache", f"the ruleset kept in {path.name} cannot be read: {error}")
        return None


def save_cache(path: Path, ruleset: Ruleset, reporter: Reporter) -> None:
    """Replace a cache file in one step: a reader sees the old ruleset or the new one, and a full disk keeps the old.

    It is not forced to the platter: what a power cut tears, the checksum finds.
    """
    body = msgspec.json.encode(ruleset)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".ruleset-", delete=False) as file:
            temporary = file.name
            file.write(FORMAT + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        Path(temporary).replace(path)
    except OSError as error:
        reporter.trouble("cache", f"the ruleset cannot be kept in {path.parent}: {error}")
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def read_bootstrap(bootstrap: Mapping[str, Any] | str | os.PathLike[str], reporter: Reporter) -> Ruleset | None:
    """Return the ruleset of a bootstrap document or file (the body of a ruleset answer); None: unreadable."""
    try:
        if isinstance(bootstrap, Mapping):
            return msgspec.convert(bootstrap, Ruleset)
        return _decoder.decode(Path(bootstrap).read_bytes())
    except (OSError, TypeError, ValueError, RecursionError) as error:
        reporter.trouble("bootstrap", f"the bootstrap ruleset cannot be read: {error}")
        return None
