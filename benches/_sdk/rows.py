"""A row of a bench, how a bench says its rows, and Python processes that print JSON."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""Without it every start would compile what it imports."""
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Row:
    """One claim; without a target it is shown, not judged."""

    name: str
    value: float | None
    unit: str
    target: float | None = None
    floor: float | None = None
    peers: Mapping[str, float | None] = field(default_factory=dict)
    at_least: bool = False
    also: bool = True

    @property
    def holds(self) -> bool:
        """Whether the value keeps its target, and whatever else was asked."""
        if self.value is None or not self.also:
            return False
        if self.target is None:
            return True
        return self.value >= self.target if self.at_least else self.value <= self.target

    def document(self) -> dict[str, Any]:
        """The row as it stands in the JSON."""
        document = asdict(self) | {"holds": self.holds}
        del document["at_least"], document["also"]
        for name in ("value", "floor"):
            document[name] = None if document[name] is None else float(f"{document[name]:.4g}")
        document["peers"] = {name: None if x is None else float(f"{x:.4g}") for name, x in self.peers.items()}
        return document

    def text(self) -> str:
        """The row for people."""
        mark = "    " if self.target is None else "ok  " if self.holds else "MISS"
        sign = ">=" if self.at_least else "<="
        target = "" if self.target is None else f"  {sign} {self.target:g}"
        floor = "" if self.floor is None else f"  floor {self.floor:.3g}"
        value = "missing" if self.value is None else f"{self.value:.3g}"
        peers = "".join(
            f"\n         {name:<44}{'missing' if x is None else f'{x:.3g}':>12}" for name, x in self.peers.items()
        )
        return f"{mark} {self.name:<78}{value:>8} {self.unit}{target}{floor}{peers}"


def told(bench: str, rows: Iterable[Row], *, as_json: bool) -> int:
    """Print each row as soon as it is known, then those that missed, and as JSON one object last; 1 if any did."""
    found = []
    for row in rows:
        found.append(row)
        print(row.text(), flush=True)
    missed = [row.name for row in found if not row.holds]
    print(f"\n{len(found)} rows, {len(missed)} missed", *missed, sep="\n  ")
    if as_json:
        print(json.dumps({"bench": bench, "holds": not missed, "rows": [row.document() for row in found]}))
    return 1 if missed else 0


def python(code: str, *arguments: str, timeout: float = 120.0, **environment: str) -> Any:
    """Return the JSON that Python, a module or a text, prints last in a process of its own; None if it fails."""
    what = ["-m", code] if code.startswith("benches.") else ["-c", code]
    try:
        done = subprocess.run([sys.executable, *what, *arguments], cwd=ROOT, timeout=timeout, stdin=subprocess.DEVNULL,
                              env={**ENVIRONMENT, **environment}, capture_output=True)  # fmt: skip
        return json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        return None
