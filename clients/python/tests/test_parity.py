"""`Client` and `AsyncClient` offer the same: whoever can use one can use the other."""

import inspect
import re
from typing import Any

import rollout_client
from rollout_client import AsyncClient, Client

AWAITED = {
    "start": "an asyncio client is started on the loop that runs it",
    "wait_ready": "it waits",
    "run": "it waits for the call",
    "close": "it waits for the last batch",
}
"""Methods that are coroutine functions of AsyncClient and plain functions of Client."""
ONLY = {
    "__enter__": "Client: `with`",
    "__exit__": "Client: `with`",
    "__aenter__": "AsyncClient: `async with`",
    "__aexit__": "AsyncClient: `async with`",
}
"""What one of them has and the other cannot have."""
OTHER_TYPES = {"run.call": "may give an awaitable"}
"""Parameters whose annotations differ."""
ADVICE = (
    "What does not wait belongs into rollout_client.common, where both have it. What waits belongs into client.py and "
    "aclient.py, with the same name, parameters and defaults. If they must differ, add it to the list in this test and "
    "say why."
)


def surface(kind: type) -> dict[str, Any]:
    names = [name for name in dir(kind) if not name.startswith("_")] + [name for name in ONLY if hasattr(kind, name)]
    return {name: inspect.getattr_static(kind, name) for name in names}


def test_they_have_the_same_methods() -> None:
    one, other = surface(Client), surface(AsyncClient)
    differing = (one.keys() ^ other.keys()) - ONLY.keys()
    assert not differing, f"only one of Client and AsyncClient has {sorted(differing)}. {ADVICE}"
    assert {name for name in ONLY if (name in one) == (name in other)} == set(), f"ONLY lists too much. {ADVICE}"


def test_what_waits_is_awaited_and_nothing_else() -> None:
    shared = surface(Client).keys() & surface(AsyncClient).keys()
    awaited = {name for name in shared if inspect.iscoroutinefunction(getattr(AsyncClient, name))}
    assert awaited == AWAITED.keys(), f"coroutine functions of AsyncClient: {sorted(awaited)}. {ADVICE}"
    assert not any(inspect.iscoroutinefunction(getattr(Client, name)) for name in shared)


def test_they_take_the_same_parameters_with_the_same_defaults() -> None:
    shared = (surface(Client).keys() & surface(AsyncClient).keys()) | {"__init__"}
    for name in sorted(shared):
        mine, theirs = (inspect.signature(getattr(kind, name)).parameters for kind in (Client, AsyncClient))
        assert list(mine) == list(theirs), f"{name} takes other parameters. {ADVICE}"
        for key, parameter in mine.items():
            twin = theirs[key]
            assert (parameter.kind, parameter.default) == (twin.kind, twin.default), f"{name}({key}) differs. {ADVICE}"
            if f"{name}.{key}" not in OTHER_TYPES:
                assert parameter.annotation == twin.annotation, f"{name}({key}) is annotated otherwise. {ADVICE}"


def test_both_are_documented_alike() -> None:
    for name in surface(Client).keys() & AWAITED.keys():
        mine, theirs = (inspect.getdoc(getattr(kind, name)) or "" for kind in (Client, AsyncClient))
        listed = [re.findall(r"^    (\w+): ", doc, re.MULTILINE) for doc in (mine, theirs)]
        assert mine, f"Client.{name} has no docstring"
        assert theirs, f"AsyncClient.{name} has no docstring"
        assert listed[0] == listed[1], f"the Args of {name} differ. {ADVICE}"


def test_what_the_package_names_is_there() -> None:
    for name in rollout_client.__all__:
        assert getattr(rollout_client, name) is not None
    assert rollout_client.AsyncClient is AsyncClient
