"""What a type checker must think of the public names. mypy reads this; nobody runs it."""

from __future__ import annotations

from typing import Any, assert_type

import pytest
from openfeature import api

from rollout_client import AsyncClient, Attempt, Client, Context, Evaluation, Options, Outcome, Status
from rollout_client.openfeature import RamplineProvider
from rollout_client.testing import Exposed, InMemoryAsyncClient, InMemoryClient, in_memory_client


def use(client: Client) -> None:
    """The calls of an application."""
    assert_type(client.evaluate("flag", Context("user-1", plan="pro")), Evaluation)
    assert_type(client.evaluate("flag", None, "default").value, Any)
    assert_type(client.evaluate("flag", None).receipt, str | None)
    assert_type(client.status(), Status)
    assert_type(client.wait_ready(1), bool)
    assert_type(client.attempt("flag", None), Attempt)
    assert_type(Outcome("text", confidence=0.4), Outcome[str])
    client.run("flag", None, lambda value: value, fallback=lambda: "person", timeout=1)
    client.observe("thumbs_down", True, receipt="r1.")
    with client as same:
        assert_type(same, Client)
    with client.attempt("flag", None) as attempt:
        attempt.record(cost_usd=0.1)
    api.set_provider(RamplineProvider(client, wait=0.5))


async def wait(client: AsyncClient) -> None:
    """The same, awaited."""
    async with client as same:
        assert_type(same, AsyncClient)
        assert_type(await same.wait_ready(1), bool)
        assert_type(same.evaluate("flag", None), Evaluation)


def check(client: InMemoryClient) -> None:
    """A test of an application."""
    use(client)
    client.set("flag", "v8", {"model": "large"}, baseline="v7", percentage=50, units=["user-1"])
    with client.override("flag", "v7"):
        assert_type(client.exposures, list[Exposed])


flags = pytest.fixture(in_memory_client)
Client("https://rampline.example.com", "key", environment="production", options=Options(spool_dir="/var/spool/x"))
Client("https://rampline.example.com", "key", environment="production", options=Options(flush="1"))  # type: ignore[call-arg]
asynchronous: AsyncClient = InMemoryAsyncClient()
