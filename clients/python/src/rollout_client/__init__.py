"""Asks, in the process and without a network call, which variant of an AI feature a unit gets.

What it is for: `Client` and `AsyncClient` keep the ruleset of one environment in memory, answer flags from it, and send
back folded evidence. What it may import: msgspec, mmh3 and the standard library; httpx, httpx-sse and asyncio where it
waits only. What it never does: raise into the application, block it, send the id of a unit, or import the service.
"""

from typing import TYPE_CHECKING, Any

from rollout_client.attempt import Attempt
from rollout_client.breaker import BreakerOptions
from rollout_client.client import Client
from rollout_client.evaluation.answer import Evaluation
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.evidence import Alert
from rollout_client.evaluation.receipt import Receipt
from rollout_client.failure import FailureKind, classify, classify_response
from rollout_client.options import Options
from rollout_client.outcome import Outcome
from rollout_client.report import Status
from rollout_client.usage import Price, Prices, Usage, usage_of

if TYPE_CHECKING:
    from rollout_client.aclient import AsyncClient

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


def __getattr__(name: str) -> Any:
    """Import `AsyncClient` when it is asked for: asyncio costs a process that has no use for it."""
    if name == "AsyncClient":
        from rollout_client.aclient import AsyncClient

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
