"""Forks, exits and imports: what happens around the process."""

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rollout_client
from clients.python.tests.service import KEY, Service, document, eventually
from rollout_client import Client, Context

FLAG = "support-answer"
SOURCE = str(Path(rollout_client.__file__).parents[1])


def python(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": SOURCE, "PATH": os.environ.get("PATH", "")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *arguments],
        capture_output=True, text=True, timeout=20, env=environment, check=False,
    )  # fmt: skip


def in_child(work: Callable[[], Any]) -> Any:
    """Run something in a forked child and return what it returned, as JSON carries it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writing, json.dumps(work()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return json.loads(said)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_answers_follows_and_sends_without_being_asked(
    service: Service, connect: Callable[..., Client]
) -> None:
    client = connect()
    eventually(lambda: client.status().stream == "open")
    client.evaluate(FLAG, Context("user-1"))

    def work() -> dict[str, Any]:
        first = client.evaluate(FLAG, Context("user-2")).variant
        eventually(lambda: client.status().stream == "open")
        service_streams = client.status().stream
        eventually(lambda: client.evaluate(FLAG, Context("user-2")).variant == "v7")
        client.close()
        return {"first": first, "stream": service_streams, "dropped": client.status().dropped}

    def change() -> None:
        eventually(lambda: service.requests["/sdk/v1/stream"] >= 2)
        time.sleep(0.2)
        service.serve(document(revision=2, threshold=0))

    changer = threading.Thread(target=change)
    changer.start()
    said = in_child(work)
    changer.join()
    assert said == {"first": "v8", "stream": "open", "dropped": {}}
    eventually(lambda: client.evaluate(FLAG, Context("user-1")).variant == "v7")
    client.close()
    processes = {batch.process for batch in service.batches.values()}
    assert len(processes) == 2
    assert service.counted("first_exposures")["at_1", "candidate"] == 2


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_holds_no_connection_of_its_parent(service: Service, connect: Callable[..., Client]) -> None:
    client = connect()
    eventually(lambda: client.status().stream == "open")

    def sockets_to_the_service() -> int:
        port = f":{int(service.url.rpartition(':')[2]):04X} "
        mine = {str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()}
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(f"{row[2]} ".endswith(port) and f"socket:[{row[9]}]" in mine for row in rows)

    assert sockets_to_the_service() >= 1
    assert in_child(sockets_to_the_service) == 0
    service.serve(document(revision=2, threshold=0))
    eventually(lambda: client.evaluate(FLAG, Context("user-1")).variant == "v7")


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_lease_lapses_in_a_child_that_asks_nothing(service: Service, connect: Callable[..., Client]) -> None:
    service.serve(document(revision=2, lease_ms=400))
    client = connect()
    eventually(lambda: client.evaluate(FLAG, Context("user-1")).variant == "v8")
    service.engine_age = None

    def work() -> str:
        time.sleep(0.6)
        service_reason = client.evaluate(FLAG, Context("user-1")).reason
        client.close(0.1)
        return service_reason

    assert in_child(work) == "STALE"


EXITING = """
    import sys
    from rollout_client import Client, Context, Options
    client = Client(sys.argv[1], sys.argv[2], environment="production", options=Options(flush_interval=60))
    client.start()
    assert client.wait_ready(5)
    for number in range(1000):
        client.evaluate("support-answer", Context(f"user-{number}"))
"""


def test_a_plain_exit_sends_what_was_counted(service: Service) -> None:
    done = python(EXITING, service.url.replace("127.0.0.1", "localhost"), KEY)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
    assert service.counted("exposures") == {("at_1", "candidate"): 1000}


def test_an_exit_without_the_service_is_quick_and_clean() -> None:
    script = EXITING.replace("assert client.wait_ready(5)", "")
    began = time.monotonic()
    done = python(script, "http://127.0.0.1:9", KEY)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 8


def test_importing_it_imports_no_network_library_and_starts_nothing() -> None:
    done = python(
        """
        import sys, threading
        waiting = {
            "anyio", "asyncio", "concurrent.futures", "email", "http", "httpcore", "httpx", "httpx_sse", "re2",
            "selectors", "semver", "ssl", "subprocess", "urllib",
        }
        later = {
            "base64", "contextvars", "dataclasses", "difflib", "hashlib", "importlib.metadata", "json", "logging",
            "pathlib", "queue", "random", "rollout_client.attempt", "rollout_client.calls",
            "rollout_client.evaluation.evaluate", "signal", "tempfile",
        }
        import rollout_client
        from rollout_client import Client, Context, Options
        print(sorted((waiting | later) & sys.modules.keys()))
        Client("http://127.0.0.1:9", "key", environment="production")
        print(sorted(waiting & sys.modules.keys()), threading.active_count())
        """
    )
    assert (done.stdout, done.stderr) == ("[]\n[] 1\n", "")


def test_every_public_name_can_be_asked_for() -> None:
    assert set(rollout_client.__all__) <= set(dir(rollout_client))
    assert all(hasattr(rollout_client, name) for name in rollout_client.__all__)
    with pytest.raises(AttributeError, match="Klient"):
        rollout_client.Klient  # type: ignore[attr-defined]  # noqa: B018  (that it is missing is the test)


def test_the_evaluator_imports_nothing_that_waits() -> None:
    done = python(
        """
        import importlib.util, sys, types
        package = types.ModuleType("rollout_client")
        package.__path__ = [importlib.util.find_spec("rollout_client").submodule_search_locations[0]]
        sys.modules["rollout_client"] = package
        before = set(sys.modules)
        import rollout_client.evaluation.evaluate
        waiting = {"asyncio", "socket", "httpx", "logging", "random", "re2", "semver"}
        print(sorted(waiting & (set(sys.modules) - before)))
        """
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
