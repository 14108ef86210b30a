"""The command `rollout serve` as a process of its own: its first key, its logs, its end."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from rollout import telemetry
from rollout.cli.main import main
from tests.shell.http.server import ADMIN, ENVIRONMENT, FLAG

FIRST_KEY = re.compile(r"Admin key, shown this once: (rl_\S+)")


@dataclass
class Process:
    """A running `rollout serve`; `out` and `err` are files of what it has written so far."""

    popen: subprocess.Popen[bytes]
    out: Path
    err: Path
    url: str = ""

    def http(self, key: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=10)

    def stop(self) -> float:
        """Seconds from the signal to the end."""
        began = time.monotonic()
        self.popen.send_signal(signal.SIGTERM)
        self.popen.wait(15)
        return time.monotonic() - began


def launch(database_url: str, folder: Path, name: str, **variables: str) -> Process:
    out, err = folder / f"{name}.out", folder / f"{name}.err"
    chosen = {f"ROLLOUT_{key.upper()}": value for key, value in variables.items()}
    env = {**os.environ, "ROLLOUT_DATABASE_URL": database_url, "ROLLOUT_PORT": "0", **chosen}
    with out.open("wb") as stdout, err.open("wb") as stderr:
        popen = subprocess.Popen([sys.executable, "-m", "rollout", "serve"], stdout=stdout, stderr=stderr, env=env)
    return Process(popen, out, err)


@contextmanager
def served(database_url: str, folder: Path, name: str = "service", **variables: str) -> Iterator[Process]:
    """A service that listens; killed at the end if it has not ended by then."""
    process = launch(database_url, folder, name, **variables)
    try:
        deadline = time.monotonic() + 30
        while not process.url and process.popen.poll() is None and time.monotonic() < deadline:
            found = re.search(r"http://127\.0\.0\.1:\d+", process.err.read_text())
            process.url = found.group() if found else ""
            time.sleep(0.05)
        assert process.url, process.err.read_text()
        yield process
    finally:
        if process.popen.poll() is None:
            process.popen.kill()
            process.popen.wait()


def test_the_first_start_prints_an_admin_key_this_once_and_no_second_process_may_join(
    sqlite_url: str, tmp_path: Path
) -> None:
    with served(sqlite_url, tmp_path, "first") as first:
        printed = FIRST_KEY.findall(first.out.read_text())
        assert len(printed) == 1
        with first.http(printed[0]) as http:
            keys = http.get("/api/v1/keys").json()
        assert [key["scopes"] for key in keys] == [["admin"]]
        assert printed[0] not in first.err.read_text()
        second = launch(sqlite_url, tmp_path, "second")
        assert second.popen.wait(30) == 1
        said = second.err.read_text()
        assert "another process serves" in said
        assert "PostgreSQL" in said
        assert "Traceback" not in said
        assert second.out.read_text() == ""
        for role in ("api", "worker"):
            other = launch(sqlite_url, tmp_path, role, role=role)
            assert other.popen.wait(30) == 1
            assert other.err.read_text() == said
        first.popen.kill()  # the lock dies with its process
        first.popen.wait()
    with served(sqlite_url, tmp_path, "third") as third:
        assert third.out.read_text() == ""
        with third.http(printed[0]) as http:
            assert http.get("/api/v1/keys").status_code == 200


def test_a_port_that_is_taken_is_refused_in_a_sentence_before_a_key_is_made(sqlite_url: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        late = launch(sqlite_url, tmp_path, "late", port=str(port))
        assert late.popen.wait(30) == 1
    assert late.err.read_text() == f"port {port} is in use; choose another with --port or ROLLOUT_PORT\n"
    assert late.out.read_text() == ""
    with served(sqlite_url, tmp_path) as service:
        assert len(FIRST_KEY.findall(service.out.read_text())) == 1


def test_a_host_of_another_machine_is_refused_in_a_sentence(sqlite_url: str, tmp_path: Path) -> None:
    late = launch(sqlite_url, tmp_path, "late", host="192.0.2.1")
    assert late.popen.wait(30) == 1
    said = late.err.read_text()
    assert said.startswith("cannot listen on 192.0.2.1, port 0 (")
    assert "Traceback" not in said


def test_at_info_the_log_has_refusals_and_not_what_went_well(sqlite_url: str, tmp_path: Path) -> None:
    with served(sqlite_url, tmp_path, admin_key=ADMIN) as service, service.http(ADMIN) as http:
        assert http.get("/api/v1/flags").status_code == 200
        assert http.get("/api/v1/flags/gone").status_code == 404
        service.stop()
    lines = [json.loads(line) for line in service.err.read_text().splitlines()]
    assert [line["status"] for line in lines if line["event"] == "request"] == [404]


def test_it_ends_within_a_second_and_cleanly_while_a_stream_is_open(sqlite_url: str, tmp_path: Path) -> None:
    with served(sqlite_url, tmp_path, admin_key=ADMIN) as service, service.http(ADMIN) as http:
        http.post("/api/v1/environments", json=ENVIRONMENT)
        with http.stream("GET", "/sdk/v1/stream?environment=production") as answer:
            lines = answer.iter_lines()
            assert next(lines) == "event: heartbeat"
            took = service.stop()
            assert [line for line in lines if line.startswith("event")] == ["event: ruleset"]
    assert service.popen.returncode == 0
    events = [json.loads(line)["event"] for line in service.err.read_text().splitlines()]
    assert events.count("stopping") == 1
    assert took < 3  # a second, and some for a busy machine; a stream that had to be cut would take five
    for word in ("Traceback", "error", "warning"):
        assert word not in service.err.read_text()


def test_the_log_has_no_body_no_secret_and_no_query_even_of_what_failed(sqlite_url: str, tmp_path: Path) -> None:
    marks = ["body-mark", "query-mark", "header-mark", "path-mark"]
    with served(sqlite_url, tmp_path, admin_key=ADMIN, log_level="debug") as service, service.http(ADMIN) as http:
        http.post("/api/v1/environments", json=ENVIRONMENT)
        made = http.post("/api/v1/keys", json={"name": "body-mark", "scopes": ["viewer"]}).json()["secret"]
        http.post("/api/v1/cohorts", json={"key": "body-mark", "units": ["body-mark"]})
        http.post("/api/v1/flags", json={**FLAG, "default_variant": "body-mark"})
        http.post("/api/v1/flags", content=b'{"body-mark')
        http.get("/api/v1/flags/path-mark", params={"q": "query-mark"}, headers={"X-Extra": "header-mark"})
        http.get("/path-mark", headers={"Authorization": "Bearer rl_header-mark"})
        http.post("/sdk/v1/events?environment=production", content=b'{"batch_id": "body-mark"}')
        http.put("/api/v1/environments/path-mark", json={"key": "production", "description": "body-mark", "x": 1})

        with sqlite3.connect(sqlite_url.partition(":///")[2]) as database:
            database.execute("DROP TABLE audit")
        failed = http.post("/api/v1/flags", json={**FLAG, "description": "body-mark"})
        assert (failed.status_code, failed.json()["title"]) == (500, "Internal error")
        assert "audit" not in failed.text
        assert http.get("/api/v1/flags/answer").status_code == 404  # nothing of it was kept
        service.stop()
    log = service.err.read_text() + service.out.read_text()
    for mark in [*marks, made, ADMIN]:
        assert mark not in log
    lines = [json.loads(line) for line in service.err.read_text().splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert {"method": "GET", "path": "/api/v1/flags/{key}", "status": 404}.items() <= requests[5].items()
    assert all(line["ms"] >= 0 for line in requests)
    for line in requests:
        assert line["level"] == ("debug" if line["status"] < 400 else "info" if line["status"] < 500 else "warning")
    assert {line["level"] for line in requests} == {"debug", "info", "warning"}
    failure = next(line for line in lines if line["event"] == "request failed")
    assert failure["exception"][0]["type"].startswith("sqlalchemy.exc.")
    assert any("create_flag" in place for place in failure["exception"][0]["at"])


def test_the_role_may_be_given_to_the_command_and_must_be_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["rollout", "serve", "--role", "boss"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("ROLLOUT_ROLE: Input should be 'all', 'api' or 'worker'")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("ROLLOUT_PORT", "high", "ROLLOUT_PORT: "),
        ("ROLLOUT_ADMIN_KEY", "hunter2", "a key begins with 'rl_'"),
        ("ROLLOUT_ROLE", "boss", "ROLLOUT_ROLE: "),
        ("ROLLOUT_DATABASE_URL", "mysql://me:hunter2@host/x", "use 'sqlite:///FILE' or 'postgresql://"),
        ("ROLLOUT_DATABASE_URL", "postgresql://me:hunter2@host:one,other:two/x", "write HOST:PORT,HOST:PORT"),
        ("ROLLOUT_DATABASE_URL", "postgresql://me:hunter2@host:one/x", "it cannot be read"),
        ("ROLLOUT_DATABASE_URL", "postgresql://me:hunter2@127.0.0.1:9,127.0.0.1:10/x", "cannot be reached"),
        ("ROLLOUT_DATABASE_URL", "sqlite:///no/such/folder/x.db", "No such file or directory; check ROLLOUT"),
        ("ROLLOUT_DATABASE_URL", "postgresql://me:hunter2@127.0.0.1:9/x", "cannot be reached"),
    ],
)
def test_a_setting_that_is_none_is_refused_in_a_sentence(
    name: str,
    value: str,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(telemetry, "configure", lambda _: None)  # the tests' own logging stays as it is
    monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["rollout", "serve"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert says in said
    assert "hunter2" not in said
