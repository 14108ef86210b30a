#!/usr/bin/env python3
"""The one tool a developer needs: `python3 dev.py demo`, `python3 dev.py test`, and a few more.

It needs a Python >= 3.11 with pip on a POSIX system, and nothing else. On its first run it puts uv into
`.tools` and the hash-locked requirements into `.venv`; where uv cannot be had, pip does the same, slower.
Later runs compare one stamp and start at once. Standard library only, and an old Python can read it far
enough to say what to do.
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

ROOT = Path(__file__).resolve().parent
TOOLS = ROOT / ".tools"
VENV = ROOT / ".venv"
STAMP = VENV / "rampline-stamp.json"
LOCK = ROOT / "requirements" / "dev.txt"
UV_LOCK = ROOT / "requirements" / "uv.txt"
DISTRIBUTIONS = ["-e", str(ROOT), "-e", str(ROOT / "clients" / "python")]

OLDEST = (3, 11)
TRIED_PYTHONS = ["python3.13", "python3.12", "python3.11", "python3.14"]

# What pip was told by its environment or pip.conf, in the words of uv, which reads neither.
PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "timeout": "UV_HTTP_TIMEOUT",
    "proxy": "ALL_PROXY",
}

LONGEST_FILE = 400
WRITTEN_BY_PEOPLE = {".css", ".html", ".md", ".py", ".sh", ".sql", ".toml", ".ts", ".tsx", ".yaml"}
MADE_BY_TOOLS = {"__pycache__", "build", "dist", "node_modules"}
NOT_OURS = {
    "a path of one machine": re.compile(r"(?<![\w.\-:/}])/(?:home|opt|root|tmp|Users|var/folders|work)/\w"),
    "a registry's address": re.compile(r"pypi\.org|pythonhosted\.|registry\.npmjs|index-url [h]ttp"),
}


class Unusable(Exception):
    """This machine or this call cannot be served; the message says what to do."""


# ------------------------------------------------------------------------------------------- the environment
def ensure_python() -> None:
    """Go on under a newer Python when this one is too old.

    Raises:
        Unusable: there is no newer one on PATH.
    """
    if sys.version_info >= OLDEST:
        return
    for name in TRIED_PYTHONS:
        found = shutil.which(name)
        # A version manager leaves launchers for versions that it does not run here: try before going over.
        if found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:
            os.execv(found, [found, *sys.argv])
    have = ".".join(str(part) for part in sys.version_info[:3])
    raise Unusable(
        f"Rampline needs Python >= 3.11; this is {have}, and no newer python3.X is on PATH.\n"
        "Install one (on Debian 12: apt-get install python3 python3-pip) and run dev.py with it."
    )


def fingerprint() -> dict[str, str]:
    """What the environment is made for (`home`) and from (`content`); a change of either is made good."""
    digest = hashlib.sha256()
    for path in [LOCK, UV_LOCK, ROOT / "pyproject.toml", ROOT / "clients" / "python" / "pyproject.toml"]:
        digest.update(path.read_bytes())
    return {"home": f"{ROOT} {sys.version_info[0]}.{sys.version_info[1]}", "content": digest.hexdigest()}


def read_stamp() -> dict[str, str]:
    """The fingerprint of the environment that is there; empty when there is none, or only half of one."""
    try:
        stamp: dict[str, str] = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return stamp


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Let one process at a time build the environment of this checkout; the others wait and find it done."""
    TOOLS.mkdir(exist_ok=True)
    with (TOOLS / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def ensure_environment() -> None:
    """Make `.venv` hold exactly what the locks say, and both distributions, editable.

    Raises:
        Unusable: neither uv nor pip could do it.
    """
    wanted = fingerprint()
    if read_stamp() == wanted:
        return
    with alone():
        stamp = read_stamp()
        if stamp == wanted:
            return
        started = time.perf_counter()
        say("setting up .venv (only after a change of the requirements)")
        STAMP.unlink() if STAMP.exists() else None
        fresh = stamp.get("home") != wanted["home"]
        if not (build_with_uv(fresh) or build_with_pip()):
            raise Unusable(
                "The requirements could not be installed; see the messages above. If the package index is\n"
                "out of reach, name one that is not (PIP_INDEX_URL, PIP_CERT or pip.conf) and run it again."
            )
        STAMP.write_text(json.dumps(wanted))
        say(f"set up in {time.perf_counter() - started:.0f} s")


def build_with_uv(fresh: bool) -> bool:
    """Build the environment with uv; False when there is no uv to be had, or it failed."""
    uv = find_uv()
    if uv is None:
        return False
    env = uv_environment()
    if fresh and not run([uv, "venv", "--quiet", "--clear", "--python", PYTHON, str(VENV)], env):
        return False
    into = ["--quiet", "--python", str(VENV / "bin" / "python")]
    return run([uv, "pip", "sync", *into, "--require-hashes", str(LOCK)], env) and run(
        [uv, "pip", "install", *into, "--no-deps", "--no-build-isolation", *DISTRIBUTIONS], env
    )


def find_uv() -> str | None:
    """The locked uv in `.tools`, else one on PATH.

    `pip --target` is allowed on a Python that its distribution manages (PEP 668), and needs no venv module.
    """
    uv = TOOLS / "bin" / "uv"
    mark = TOOLS / "uv.sha256"
    digest = hashlib.sha256(UV_LOCK.read_bytes()).hexdigest()
    if uv.exists() and mark.exists() and mark.read_text() == digest:
        return str(uv)
    options = ["--quiet", "--upgrade", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    if run([*PIP, "install", *options, "--target", str(TOOLS), "-r", str(UV_LOCK)], pip_environment()):
        mark.write_text(digest)
        return str(uv)
    return shutil.which("uv")


def build_with_pip() -> bool:
    """Build the environment with this Python's pip, which serves a venv that has none (pip >= 22.3)."""
    say("uv did not do it, going on with pip, which takes about two minutes")
    env = pip_environment()
    if not run([PYTHON, "-m", "venv", "--clear", "--without-pip", str(VENV)], env):
        return False
    install = [*PIP, "--python", str(VENV / "bin" / "python"), "install", "--quiet"]
    return run([*install, "--require-hashes", "-r", str(LOCK)], env) and run(
        [*install, "--no-deps", "--no-build-isolation", *DISTRIBUTIONS], env
    )


def python_with_pip() -> str:
    """This Python, or where it is a virtual environment without pip, as `.venv` is, the one below it."""
    if importlib.util.find_spec("pip") or sys.prefix == sys.base_prefix:
        return sys.executable
    return str(Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}"))


PYTHON = python_with_pip()
PIP = [PYTHON, "-m", "pip", "--disable-pip-version-check"]


def pip_environment() -> dict[str, str]:
    """This process's environment, less what would keep pip from installing into a folder."""
    return {**os.environ, "PIP_USER": "0", "PIP_ROOT_USER_ACTION": "ignore", "PIP_REQUIRE_VIRTUALENV": "0"}


def uv_environment() -> dict[str, str]:
    """What uv is to go by: this process's environment, and where that is silent, what pip goes by."""
    env = {"UV_SYSTEM_CERTS": "true", "UV_PYTHON_DOWNLOADS": "never", "UV_NO_CONFIG": "1", **os.environ}
    # Several indexes are one pool to pip. Every file is checked against the lock, so they may be to uv.
    env.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    listed = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True)
    for line in listed.stdout.splitlines():
        key, _, value = line.partition("=")
        name = PIP_TO_UV.get(key.rpartition(".")[2])
        if name and name not in os.environ:
            with contextlib.suppress(ValueError, SyntaxError):
                env[name] = " ".join(str(ast.literal_eval(value)).split())
    return env


def run(command: list[str], env: dict[str, str]) -> bool:
    """Run a step of the set-up, its output shown; True when it went well."""
    return subprocess.run(command, env=env, stdin=subprocess.DEVNULL).returncode == 0


def say(text: str) -> None:
    """Tell the person at the terminal something that is not a command's result."""
    print(f"dev.py: {text}", file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------------- the commands
def become(*command: str) -> NoReturn:
    """Go on as a program of the environment: its signals, its terminal and its exit code are then its own."""
    ensure_environment()
    program = str(VENV / "bin" / command[0])
    sys.stdout.flush()
    os.execv(program, [program, *command[1:]])


def demo(args: list[str]) -> int:
    """Show real rollouts in the terminal, and the moment when one is taken back."""
    become("python", "-m", "rollout.demo", *args)


def serve(args: list[str]) -> int:
    """Start the service on loopback."""
    become("python", "-m", "rollout", "serve", *args)


def test(args: list[str]) -> int:
    """Run the tests on two processes; arguments go to pytest."""
    os.chdir(ROOT)
    chosen = any(arg.startswith(("-n", "--numprocesses", "--pdb", "--trace")) for arg in args)
    spread = [] if chosen else ["-n", "2", "--dist", "loadgroup"]
    become("python", "-m", "pytest", *spread, *args)


def bench(args: list[str]) -> int:
    """Measure a claim of the README; `bench` alone lists them."""
    os.chdir(ROOT)
    names = sorted(path.stem for path in (ROOT / "benches").glob("[!_]*.py"))
    listing = "The benches are: " + ", ".join(names) if names else "There are no benches yet."
    if not args:
        print(listing)
        return 0
    if args[0] not in names:
        raise Unusable(f"There is no bench {args[0]!r}. {listing}")
    become("python", "-m", f"benches.{args[0]}", *args[1:])


def chaos(args: list[str]) -> int:
    """Kill processes and the database under running rollouts, and count what was lost."""
    os.chdir(ROOT)
    become("python", "-m", "tests.chaos", *args)


def lock(args: list[str]) -> int:
    """Resolve the requirements again; `--upgrade` takes newer versions."""
    os.chdir(ROOT)
    uv = find_uv()
    if uv is None:
        raise Unusable("`lock` needs uv, and pip could not install it; the messages above say why.")
    options = ["--quiet", "--universal", "--python-version", "3.11", "--generate-hashes", "--no-header"]
    options += ["--no-emit-index-url", "--no-emit-find-links", "--no-emit-package", "rampline-client", *args]
    files = {
        "run.txt": ["pyproject.toml"],
        "dev.txt": ["pyproject.toml", "--group", "dev", "--constraint", "requirements/run.txt"],
        "uv.txt": ["--group", "bootstrap"],
    }
    env = uv_environment()
    for name, sources in files.items():
        if not run([uv, "pip", "compile", *options, *sources, "-o", f"requirements/{name}"], env):
            return 1
    return 0


def check(args: list[str]) -> int:
    """Check lint, format, types, import contracts, lengths of files, and that no text names a machine."""
    os.chdir(ROOT)
    ensure_environment()
    programs = VENV / "bin"

    def program(name: str, *rest: str) -> Callable[[], bool]:
        return lambda: subprocess.run([str(programs / name), *rest]).returncode == 0

    steps: dict[str, Callable[[], bool]] = {
        "ruff check": program("ruff", "check"),
        "ruff format": program("ruff", "format", "--check"),
        "mypy --strict": program("mypy"),
        "import contracts": program("lint-imports", "--no-logo"),
        f"no file over {LONGEST_FILE} lines": lambda: report(long_files()),
        "no machine path, no registry address": lambda: report(foreign_addresses()),
    }
    failed = []
    for name, step in steps.items():
        print(f"== {name}", flush=True)
        started = time.perf_counter()
        if not step():
            failed.append(name)
        word = "FAILED" if name in failed else "ok"
        print(f"== {name}: {word} in {time.perf_counter() - started:.1f} s\n", flush=True)
    print(f"check: {len(steps) - len(failed)} passed, {len(failed)} failed", *failed, sep="\n  ")
    return 1 if failed else 0


# ----------------------------------------------------------------------------------------- checks of our own
def texts() -> Iterator[tuple[Path, list[str]]]:
    """Every file that people wrote, committed or not, as its path from the root and its lines."""
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name == ".ci" or not name.startswith(".")]
        folders[:] = sorted(set(folders) - MADE_BY_TOOLS)
        for path in (Path(folder, name) for name in sorted(files)):
            if path.suffix in WRITTEN_BY_PEOPLE or path.parent.name == ".ci":
                yield path.relative_to(ROOT), path.read_text(encoding="utf-8").splitlines()


def long_files() -> list[str]:
    """One sentence for each file that is longer than a person keeps in mind."""
    return [
        f"{path}: {len(lines)} lines, {LONGEST_FILE} at most: give its second idea a file of its own"
        for path, lines in texts()
        if len(lines) > LONGEST_FILE
    ]


def foreign_addresses() -> list[str]:
    """One sentence for each line that names a place on somebody's machine, or a package registry."""
    return [
        f"{path}:{number}: {hit.group()!r} looks like {what}"
        for path, lines in texts()
        for number, line in enumerate(lines, 1)
        for what, pattern in NOT_OURS.items()
        for hit in pattern.finditer(line)
    ]


def report(found: list[str]) -> bool:
    """Print what a check found; True when that is nothing."""
    print("".join(f"{line}\n" for line in found), end="")
    return not found


class Command(NamedTuple):
    """A command of this tool: what runs it, and how it is called."""

    run: Callable[[list[str]], int]
    usage: str


COMMANDS = {
    "demo": Command(demo, "demo [--check]"),
    "test": Command(test, "test [PYTEST ARGUMENTS]"),
    "check": Command(check, "check"),
    "serve": Command(serve, "serve [ARGUMENTS]"),
    "bench": Command(bench, "bench [NAME] [--json] [--quick]"),
    "chaos": Command(chaos, "chaos [--seconds SECONDS] [--json]"),
    "lock": Command(lock, "lock [--upgrade]"),
}


def usage() -> str:
    """The commands with the first line of what each is for."""
    width = max(len(command.usage) for command in COMMANDS.values())
    lines = (f"  {each.usage:<{width}}  {each.run.__doc__}" for each in COMMANDS.values())
    return "usage: python3 dev.py COMMAND\n\n" + "\n".join(lines)


def main(argv: list[str]) -> int:
    """Run one command; returns the exit code: 2 for a call that cannot be served."""
    if not argv or argv[0] in {"-h", "--help", "help"}:
        print(usage())
        return 0 if argv else 2
    command = COMMANDS.get(argv[0])
    if command is None:
        print(f"There is no command {argv[0]!r}.\n{usage()}", file=sys.stderr)
        return 2
    try:
        ensure_python()
        return command.run(argv[1:])
    except Unusable as error:
        print(f"dev.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
