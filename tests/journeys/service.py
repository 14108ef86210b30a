"""A real server process that can be killed for real, and the few calls the journeys make to it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

ADMIN = "rl_test_0123456789abcdefghijkl"
DOCUMENTS: list[tuple[str, dict[str, Any]]] = [
    ("environments", {"kind": "Environment", "key": "production"}),
    (
        "flags",
        {"kind": "Flag", "key": "answer", "variants": {"v7": "small", "v8": "large"}, "default_variant": "v7"},
    ),
    ("metrics", {"key": "error_rate", "kind": "proportion", "event": "the request failed"}),
]


class Service:
    """One service on one port and database; `start` and `kill` as often as the test likes."""

    def __init__(self, database_url: str, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {ADMIN}"}, timeout=10)
        self.sdk_key = ""
        self._database_url, self.log = database_url, log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, **settings: str) -> None:
        environment = {
            **os.environ,
            "ROLLOUT_DATABASE_URL": self._database_url,
            "ROLLOUT_PORT": str(self.port),
            "ROLLOUT_ADMIN_KEY": ADMIN,
            **settings,
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rollout", "serve"], env=environment, stdout=log, stderr=log
            )
        until(self._ready, 30, "the service answers")

    def kill(self, sign: signal.Signals = signal.SIGKILL) -> int:
        """End the process by a signal; its exit code."""
        assert self._process is not None
        self._process.send_signal(sign)
        code = self._process.wait(15)
        self._process = None
        return code

    def signal(self, sign: signal.Signals) -> None:
        """Send the process a signal that does not end it."""
        assert self._process is not None
        self._process.send_signal(sign)

    def close(self) -> None:
        self.http.close()
        if self._process is not None:
            self.kill()

    def post(self, path: str, document: dict[str, Any] | None = None) -> Any:
        answer = self.http.post(f"/api/v1/{path}", json=document or {})
        assert answer.status_code < 300, answer.text
        return answer.json()

    def get(self, path: str) -> Any:
        answer = self.http.get(f"/api/v1/{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def rollout(self, **changes: Any) -> str:
        """A started rollout of v8 over v7 on the flag `answer`."""
        document = {
            "kind": "Rollout", "flag": "answer", "environment": "production", "baseline": "v7", "candidate": "v8",
            "stages": [
                {"name": "half", "percentage": 50, "min_duration": "1s", "min_units": 0},
                {"name": "most", "percentage": 90, "min_duration": "1s", "min_units": 0},
            ],
            "guardrails": [{"metric": "error_rate", "max_regression": {"absolute": 0.1}}],
            **changes,
        }  # fmt: skip
        identifier: str = self.post("rollouts", document)["id"]
        self.act(identifier, "start")
        return identifier

    def act(self, identifier: str, action: str, reason: str = "journey") -> Any:
        return self.post(f"rollouts/{identifier}/actions/{action}", {"reason": reason})

    def status(self, identifier: str) -> Any:
        return self.get(f"rollouts/{identifier}/status")

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        try:
            return self.http.get("/health/ready").status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def service(database_url: str, folder: Path, **settings: str) -> Iterator[Service]:
    """A started service with an environment, a flag and a metric."""
    opened = Service(database_url, folder / "service.log")
    try:
        opened.start(**settings)
        for kind, document in DOCUMENTS:
            opened.post(kind, document)
        scopes = ["sdk:read", "sdk:evidence"]
        opened.sdk_key = opened.post("keys", {"name": "app", "scopes": scopes, "environment": "production"})["secret"]
        yield opened
    finally:
        opened.close()


def until(holds: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait until it holds; how long that took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, f"{what}: not within {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - began
