"""The service and the clients of one test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from clients.python.tests.service import FAST, KEY, Service
from rollout_client import Client


@pytest.fixture
def service() -> Iterator[Service]:
    running = Service()
    yield running
    running.hangs.clear()
    running.down()


@pytest.fixture
def connect(service: Service) -> Iterator[Callable[..., Client]]:
    """Make started clients of the service; they are closed after the test."""
    made: list[Client] = []

    def make(**changes: Any) -> Client:
        settings: dict[str, Any] = {"url": service.url, "key": KEY, "environment": "production", "options": FAST}
        settings |= changes
        client = Client(settings.pop("url"), settings.pop("key"), **settings)
        made.append(client)
        client.start()
        return client

    yield make
    for client in made:
        client.close(0.5)
