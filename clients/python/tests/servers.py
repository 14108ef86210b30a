"""Real servers of other people's, with a client in each of their workers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rollout_client
from clients.python.tests.service import KEY, Service, eventually

SOURCE = str(Path(rollout_client.__file__).parents[1])
APP = """
import os
from rollout_client import Client, Context, Options

client = Client(
    os.environ["TEST_URL"], os.environ["TEST_KEY"], environment="production", options=Options(flush_interval=60.0)
)
client.start()


def application(environ, start_response):
    number = environ["PATH_INFO"].strip("/")
    if number:
        client.wait_ready(5)
        client.evaluate("support-answer", Context(f"user-{number}"))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {client.status().revision} {client.status().last_error}".encode()]
"""


def environment(service: Service) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": SOURCE, "TEST_URL": service.url, "TEST_KEY": KEY}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A WSGI server that runs `APP`."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self._address = f"http://127.0.0.1:{port}"

    def get(self, path: str = "/") -> str:
        assert self.process.poll() is None, "the server is gone"
        try:
            with urllib.request.urlopen(self._address + path, timeout=5) as answer:
                said: str = answer.read().decode()
                return said
        except OSError:
            return ""

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(10)


@contextmanager
def serving(service: Service, folder: Path, command: list[str]) -> Iterator[Server]:
    """Run a server; `{port}` in its command is replaced. Its output is in `server.log` of the folder."""
    (folder / "app.py").write_text(APP)
    port = free_port()
    line = [part.replace("{port}", str(port)) for part in command]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / line[0]), *line[1:]],
            cwd=folder, env=environment(service) | {"HOME": str(folder)},
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        server = Server(process, port)
        try:
            eventually(server.get, within=20)
            yield server
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)
