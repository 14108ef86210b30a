"""Real service processes that are killed with -9 and started again, as a supervisor would."""

import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benches._sdk.rows import ENVIRONMENT
from tests.postgres import free_port

ADMIN = "rl_chaos_0123456789abcdefghijkl"
_MANY = "1000000"


class Member:
    """One process on one port. `up` holds when it answered and when it was killed (unix seconds), for each life."""

    def __init__(self, name: str, role: str, database_url: str, folder: Path) -> None:
        self.name, self.role, self.port = name, role, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"{name}.log"
        self.up: list[tuple[float, float]] = []
        self.start_took = 0.0
        self.kills = 0
        self._environment = {
            **ENVIRONMENT,
            "ROLLOUT_DATABASE_URL": database_url,
            "ROLLOUT_PORT": str(self.port),
            "ROLLOUT_ROLE": role,
            "ROLLOUT_ADMIN_KEY": ADMIN,
            "ROLLOUT_READ_REQUESTS_PER_MINUTE": _MANY,
            "ROLLOUT_API_REQUESTS_PER_MINUTE": _MANY,
        }
        self._since: float | None = None
        self._pause = 0.2
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._supervise, name=name, daemon=True)
        self._thread.start()

    @property
    def answers(self) -> bool:
        """Whether it is up now."""
        return self._since is not None

    def lives(self, until: float) -> list[tuple[float, float]]:
        """All of them; the present one as far as `until`."""
        since = self._since
        return [*self.up, *([(since, until)] if since is not None else [])]

    def kill(self, pause: float) -> None:
        """Kill it with -9, wherever it stands; it is started again after `pause` seconds."""
        process = self._process
        if process is not None and process.poll() is None:
            self._pause = pause
            self._end_life()
            process.kill()
            self.kills += 1

    def close(self) -> None:
        """End it for good."""
        self._stopping.set()
        if self._process is not None and self._process.poll() is None:
            self._end_life()
            self._process.terminate()
        self._thread.join()

    def _supervise(self) -> None:
        while not self._stopping.is_set():
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "rollout", "serve"], env=self._environment, stdout=log, stderr=log
                )
            self._await_answer(self._process)
            self._wait(self._process)
            self._end_life()
            self._stopping.wait(self._pause)
            self._pause = 0.2

    def _await_answer(self, process: "subprocess.Popen[bytes]") -> None:
        began = time.time()
        with httpx.Client(timeout=2) as http:
            while process.poll() is None and not self._stopping.is_set():
                try:
                    if http.get(f"{self.url}/health/ready").status_code == 200:
                        self._since = time.time()
                        self.start_took = self._since - began
                        return
                except httpx.TransportError:
                    time.sleep(0.05)

    def _wait(self, process: "subprocess.Popen[bytes]") -> None:
        while process.poll() is None:
            time.sleep(0.02)
            if self._stopping.is_set():
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()

    def _end_life(self) -> None:
        since, self._since = self._since, None
        if since is not None:
            self.up.append((since, time.time()))


class Fleet:
    """All of them, and one way to ask whichever answers."""

    def __init__(self, roles: list[str], database_url: str, folder: Path) -> None:
        self.members = [Member(f"{role}-{number}", role, database_url, folder) for number, role in enumerate(roles)]
        self._http = httpx.Client(headers={"Authorization": f"Bearer {ADMIN}"}, timeout=10)

    @property
    def answering(self) -> list[Member]:
        """Those that have the API."""
        return [member for member in self.members if member.role != "worker"]

    @property
    def engines(self) -> list[Member]:
        """Those that run the engine."""
        return [member for member in self.members if member.role != "api"]

    def wait(self, seconds: float = 60) -> None:
        """Wait until all are up."""
        deadline = time.monotonic() + seconds
        while not all(member.answers for member in self.members):
            assert time.monotonic() < deadline, "\n".join(member.log.read_text()[-2000:] for member in self.members)
            time.sleep(0.05)

    def ask(self, method: str, path: str, document: Any = None, seconds: float = 90) -> httpx.Response:
        """The first answer that is none of a server in trouble; asks again, of anybody, until there is one."""
        deadline = time.monotonic() + seconds
        said = "nobody was up"
        while time.monotonic() < deadline:
            for member in random.sample(self.answering, len(self.answering)):
                try:
                    answer = self._http.request(method, f"{member.url}/api/v1/{path}", json=document)
                except httpx.TransportError as error:
                    said = repr(error)
                    continue
                if answer.status_code < 500:
                    return answer
                said = answer.text
            time.sleep(0.1)
        raise AssertionError(f"{method} {path}: no answer in {seconds} s; {said}")

    def close(self) -> None:
        """End all."""
        self._http.close()
        for member in self.members:
            member.close()


def seconds_up(members: list[Member], since: float, until: float, down: tuple[float, float] | None) -> float:
    """For how much of a time at least one of them was up, and the database not down."""
    step, up = 0.01, 0
    lives = [life for member in members for life in member.lives(until)]
    for number in range(int(max(0.0, until - since) / step)):
        at = since + number * step
        is_down = down is not None and down[0] <= at < down[1]
        up += not is_down and any(began <= at < ended for began, ended in lives)
    return up * step


@contextmanager
def fleet(roles: list[str], database_url: str, folder: Path) -> Iterator[Fleet]:
    """Started processes, ended whatever happens."""
    opened = Fleet(roles, database_url, folder)
    try:
        opened.wait()
        yield opened
    finally:
        opened.close()


class Monkey(threading.Thread):
    """Kills one of them at random, again and again, until it is told to stop; one in five of those that only start.

    Where a start takes longer than four seconds, it waits longer in proportion: a slow machine has fewer lives to take,
    and they are worth as much.
    """

    def __init__(self, members: list[Member], seed: int) -> None:
        super().__init__(name="monkey", daemon=True)
        self._members, self._rng = members, random.Random(seed)
        self._stopping = threading.Event()

    def run(self) -> None:
        """Kill."""
        while not self._stopping.wait(self._rng.uniform(0.5, 4.0) * self._slowness()):
            member, pause = self._rng.choice(self._members), self._rng.uniform(0.0, 2.0)
            if member.answers or self._rng.random() < 0.2:
                member.kill(pause)

    def _slowness(self) -> float:
        return max(1.0, *(member.start_took / 4 for member in self._members))

    def stop(self) -> None:
        """No more kills."""
        self._stopping.set()
        self.join()
