"""Installs the peers and runs each in a process of its own, which prints its figure as JSON."""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from benches._sdk.workload import times

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".tools" / "peers"
LOCKS = Path(__file__).with_name("peers")
WITHOUT_FOLDER = "openfeature"
"""A dependency of our own tests, which is installed anyway."""
LONGEST = 300.0


def names() -> list[str]:
    """Every peer."""
    return [WITHOUT_FOLDER, *sorted(path.stem for path in LOCKS.glob("*.txt"))]


def install(name: str) -> bool:
    """Fill the folder of a peer from its lock if it is not there; whether it is."""
    folder, lock = FOLDER / name, LOCKS / f"{name}.txt"
    if name == WITHOUT_FOLDER or folder.is_dir():
        return True
    import dev

    options = ["--quiet", "--no-deps", "--require-hashes", "--target", str(folder), "-r", str(lock)]
    command = [*dev.PIP, "install", *options]
    return (
        subprocess.run(command, env=dev.pip_environment(), stdin=subprocess.DEVNULL, capture_output=True).returncode
        == 0
    )


def measure(name: str, rounds: int) -> float | None:
    """How many times the interpreter a peer takes; None where it cannot be had or run."""
    if not install(name):
        return None
    path = os.pathsep.join([str(FOLDER / name), str(ROOT)])
    command = [sys.executable, "-m", "benches._sdk.peers", name, str(rounds)]
    with tempfile.TemporaryDirectory() as files:
        env = {**os.environ, "PYTHONPATH": path, "TMPDIR": files}
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=env, timeout=LONGEST, stdin=subprocess.DEVNULL, capture_output=True
            )
            return float(json.loads(done.stdout.splitlines()[-1])["times"])
        except (subprocess.TimeoutExpired, ValueError, IndexError, KeyError):
            return None


def main() -> None:
    """Measure one peer here; what it answers must be half of each, else it evaluates something else."""
    name, rounds = sys.argv[1], int(sys.argv[2])
    ask, users = importlib.import_module(f"benches._sdk.peer_{name}").prepare()
    answers = Counter(_value(ask(f"flag-{number % 100}", *user)) for number, user in enumerate(users[:2000]))
    if name != WITHOUT_FOLDER and not 800 < answers[True] < 1200:
        raise SystemExit(f"{name} answers {answers}")
    print(json.dumps({"times": times(ask, users[: 10_000 if rounds > 3 else 2000], rounds)}), flush=True)
    os._exit(0)  # whatever threads it has


def _value(answer: object) -> object:
    for name in ("value", "on"):
        if hasattr(answer, name):
            return getattr(answer, name)
    return answer


if __name__ == "__main__":
    main()
