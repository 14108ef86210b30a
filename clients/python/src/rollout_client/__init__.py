"""Asks, in the process and without a network call, which variant of an AI feature a unit gets.

What it is for: `Client` keeps the ruleset of one environment in memory, answers flags from it, and sends back
folded evidence. What it may import: msgspec, mmh3 and the standard library; httpx, httpx-sse and asyncio on the
background thread only. What it never does: raise into the application, block it, send the id of a unit, or import
the service.
"""

from rollout_client.attempt import Attempt
from rollout_client.client import Client
from rollout_client.evaluation.answer import Evaluation
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.receipt import Receipt
from rollout_client.options import Options
from rollout_client.outcome import Outcome
from rollout_client.report import Status

__all__ = ["Attempt", "Client", "Context", "Evaluation", "Options", "Outcome", "Receipt", "Status", "__version__"]

__version__ = "0.1.0"
