"""A real service for the demonstration: `rollout serve` in a process of its own, and its public API over HTTP."""

import json
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from rollout.demo.failure import DemoFailed
from rollout.demo.undisturbed import undisturbed

START_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0
_POLL = 0.05
_TAIL = 15


class Service:
    """From `launch` to `stop`: a service on a free loopback port, which nobody else has a key for.

    Attributes:
        url: where it listens; empty before that is known.
        key: the preset admin key.
    """

    def __init__(self, folder: Path, database_url: str | None = None) -> None:
        self.url = ""
        self.key = f"rl_demo_{secrets.token_urlsafe(24)}"
        self._database_url = database_url or f"sqlite:///{folder / 'demo.db'}"
        self._log = folder / "service.log"
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        """Start the process; `wait` waits until it is ready."""
        settings = {
            "ROLLOUT_DATABASE_URL": self._database_url,
            "ROLLOUT_HOST": "127.0.0.1",
            "ROLLOUT_PORT": "0",
            "ROLLOUT_ADMIN_KEY": self.key,
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ROLLOUT_")}
        with self._log.open("wb") as log, undisturbed():
            # A session of its own: Ctrl-C in the terminal reaches the demonstration alone, which then stops this.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rollout", "serve"],
                env=inherited | settings,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until the service listens.

        Raises:
            DemoFailed: it did not come up; the message has the last lines of its log.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while not self.url:
            self.check()
            if time.monotonic() > deadline:
                raise DemoFailed(f"the service did not listen within {START_TIMEOUT:.0f} s\n{self._tail()}")
            time.sleep(_POLL)
            self.url = self._listening()

    def check(self) -> None:
        """Raise DemoFailed unless the process runs."""
        code = None if self._process is None else self._process.poll()
        if code is not None:
            raise DemoFailed(f"the service ended with code {code}\n{self._tail()}")

    def stop(self) -> None:
        """End the process, by force if it must be."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _listening(self) -> str:
        """The address that the service says it listens on, empty until it does."""
        for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if isinstance(said, dict) and said.get("event") == "listening":
                return str(said["url"])
        return ""

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:])


class Api:
    """The public API, as anybody with a key may use it."""

    def __init__(self, url: str, key: str) -> None:
        self._http = httpx.Client(
            base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {key}"}, timeout=10.0, trust_env=False
        )

    def __enter__(self) -> "Api":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str) -> Any:
        """The JSON answer.

        Raises:
            DemoFailed: the service refused, or did not answer.
        """
        return self._ask("GET", path, None)

    def post(self, path: str, body: object) -> Any:
        """Like `get`."""
        return self._ask("POST", path, body)

    def _ask(self, method: str, path: str, body: object) -> Any:
        try:
            answer = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise DemoFailed(f"{method} {path}: the service does not answer ({type(error).__name__})") from error
        if not answer.is_success:
            raise DemoFailed(f"{method} {path}: refused with {answer.status_code}: {answer.text[:500]}")
        return answer.json()
