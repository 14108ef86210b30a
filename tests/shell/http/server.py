"""The real service on a real socket of loopback, in a thread of the test's process."""

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from litestar import Litestar

from rollout.app import create_app
from rollout.cli.serve import Server, server_of
from rollout.settings import Settings

ADMIN = "rl_test_an-admin-key-for-the-tests"

ENVIRONMENT = {"key": "production"}
FLAG = {"key": "answer", "variants": {"v7": {"model": "small"}, "v8": {"model": "large"}}, "default_variant": "v7"}
COHORT = {"key": "staff", "units": ["ann", "bob"]}
METRIC = {"key": "error_rate", "kind": "proportion", "event": "the request failed"}
ROLLOUT = {
    "flag": "answer",
    "environment": "production",
    "baseline": "v7",
    "candidate": "v8",
    "stages": [
        {"name": "canary", "percentage": 10, "min_duration": "1h"},
        {"name": "half", "percentage": 50, "min_duration": "1h"},
    ],
    "guardrails": [{"metric": "error_rate", "max_regression": {"absolute": 0.05}}],
}


@dataclass
class Site:
    """A running service: `http` holds the admin key, `with_key` makes clients with other ones."""

    url: str
    app: Litestar
    server: Server
    http: httpx.Client

    def key(self, *scopes: str, environment: str | None = None) -> str:
        """The secret of a new key."""
        body = {"name": "-".join(scopes), "scopes": scopes, "environment": environment}
        made = self.http.post("/api/v1/keys", json=body)
        assert made.status_code == 201, made.text
        secret: str = made.json()["secret"]
        return secret

    def with_key(self, *scopes: str, environment: str | None = None) -> httpx.Client:
        """A client with a new key; it lives as long as the test."""
        return client(self.url, self.key(*scopes, environment=environment))

    def populate(self) -> None:
        """An environment, a cohort, a metric and a flag."""
        for path, body in (
            ("environments", ENVIRONMENT),
            ("cohorts", COHORT),
            ("metrics", METRIC),
            ("flags", FLAG),
        ):
            self.post(f"/api/v1/{path}", body)

    def post(self, path: str, body: Any = None) -> Any:
        """The answer of a POST that must succeed."""
        answer = self.http.post(path, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def draft(self, **changes: Any) -> str:
        """The id of a new rollout."""
        identifier: str = self.post("/api/v1/rollouts", {**ROLLOUT, **changes})["id"]
        return identifier

    def act(self, rollout: str, action: str, **body: Any) -> Any:
        """Carry out an act that must succeed."""
        return self.post(f"/api/v1/rollouts/{rollout}/actions/{action}", body)


def client(url: str, key: str | None) -> httpx.Client:
    """A client with a key, or without any."""
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=10)


@contextmanager
def serving(database_url: str, **settings: Any) -> Iterator[Site]:
    """A service on a free port, until the block ends; it must end by itself within a second or two."""
    chosen = Settings(database_url=database_url, port=0, admin_key=ADMIN, **settings)
    app = create_app(chosen)
    server = server_of(app, chosen)
    failures: list[BaseException] = []
    thread = threading.Thread(target=_run, args=(app, server, failures), name="service")
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    if failures:
        thread.join()
        raise failures[0]
    port = server.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    try:
        with client(url, ADMIN) as http:
            yield Site(url, app, server, http)
    finally:
        server.handle_exit(signal.SIGTERM, None)
        thread.join(10)
        assert not thread.is_alive(), "the service did not end"
    if failures:
        raise failures[0]


def _run(app: Litestar, server: Server, failures: list[BaseException]) -> None:
    async def run() -> None:
        async with app.lifespan():
            await server.serve()

    try:
        asyncio.run(run())
    except BaseException as error:
        failures.append(error)
