"""Asks, in the process and without a network call, which variant of an AI feature a unit gets.

What it is for: `Client` and `AsyncClient` keep the ruleset of one environment in memory, answer flags from it, and send
back folded evidence. What it may import: msgspec, mmh3 and the standard library; httpx, httpx-sse and asyncio where it
waits only. What it never does: raise into the application, block it, send the id of a unit, or import the service.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rollout_client.breaker import BreakerOptions
from rollout_client.client import Client
from rollout_client.evaluation.answer import Evaluation
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.evidence import Alert
from rollout_client.evaluation.receipt import Receipt
from rollout_client.failure import FailureKind, classify, classify_response
from rollout_client.options import Options
from rollout_client.report import Status
from rollout_client.usage import Price, Prices, Usage, usage_of

if TYPE_CHECKING:
    from rollout_client.aclient import AsyncClient
    from rollout_client.attempt import Attempt
    from rollout_client.outcome import Outcome

__all__ = [
    "Alert",
    "AsyncClient",
    "Attempt",
    "BreakerOptions",
    "Client",
    "Context",
    "Evaluation",
    "FailureKind",
    "Options",
    "Outcome",
    "Price",
    "Prices",
    "Receipt",
    "Status",
    "Usage",
    "__version__",
    "classify",
    "classify_response",
    "usage_of",
]

__version__ = "0.1.0"

_LATER = {
    "AsyncClient": "aclient",
    "Attempt": "attempt",
    "Outcome": "outcome",
}
"""What is imported when it is asked for, and where it is: asyncio costs a process that has no use for it."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)  # asked for once
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
