"""What the service says about itself: log lines on standard error, and every Prometheus metric, declared once.

No line ever carries a body, a header, a query or a value: an exception is logged as its type and the places it passed
through, because messages of drivers quote what was stored.
"""

import logging
import sys
import traceback
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from structlog.typing import EventDict, Processor

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

REQUESTS = Histogram(
    "rampline_request_seconds",
    "Time to answer a request, by method, path template and status (streams: until they end).",
    ("method", "path", "status"),
    registry=REGISTRY,
)
STREAMS = Gauge("rampline_streams", "Streams that are open in this process.", registry=REGISTRY)
BATCHES = Counter("rampline_batches", "Batches of evidence, by outcome.", ("outcome",), registry=REGISTRY)
ALERTS = Counter("rampline_client_alerts", "Alerts that clients sent, by kind.", ("kind",), registry=REGISTRY)
DECISIONS = Counter(
    "rampline_decisions",
    "Decisions the engine carried out in this process, by kind and first reason.",
    ("kind", "reason"),
    registry=REGISTRY,
)
HOLDS = Counter(
    "rampline_hold_seconds",
    "Time that looks of this process found rollouts held, by reason; several may hold at once.",
    ("reason",),
    registry=REGISTRY,
)
_ROLLOUT = ("rollout", "flag", "environment")
STATE = Gauge(
    "rampline_rollout_state", "1 for the present status of each live rollout.", (*_ROLLOUT, "status"), registry=REGISTRY
)
PERCENTAGE = Gauge(
    "rampline_rollout_percentage", "What is served the candidate now (percent).", _ROLLOUT, registry=REGISTRY
)
STAGE_AGE = Gauge(
    "rampline_rollout_stage_age_seconds",
    "Time spent in the present stage; pauses do not count.",
    (*_ROLLOUT, "stage"),
    registry=REGISTRY,
)
ENGINE_AGE = Gauge(
    "rampline_engine_age_seconds",
    "Time since an engine completed a protect pass, by the database's clock; NaN: never.",
    registry=REGISTRY,
)

_OURS = Path(__file__).parent


def configure(level: str = "info") -> None:
    """Send every log line of the process to standard error: text on a terminal, JSON elsewhere."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        places_not_values,
    ]
    renderers: list[Processor] = [structlog.processors.JSONRenderer()]
    if sys.stderr.isatty():
        renderers = [places_as_text, structlog.dev.ConsoleRenderer()]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for noisy in ("apscheduler", "uvicorn", "httpx", "alembic", "aiosqlite", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def places_not_values(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Replace `exc_info` by `places` of the exception."""
    found = event.pop("exc_info", None)
    if found:
        error = found[1] if isinstance(found, tuple) else found
        error = error if isinstance(error, BaseException) else sys.exc_info()[1]
        if error is not None:
            event["exception"] = places(error)
    return event


def places_as_text(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """For a terminal, which takes an exception as a text: a line for each of the chain."""
    found = event.get("exception")
    if isinstance(found, list):
        event["exception"] = "\n".join(f"{each['type']} at {', '.join(each['at'])}" for each in found)
    return event


def places(error: BaseException) -> list[dict[str, Any]]:
    """An exception and its causes: the type of each, the functions of ours it passed, where it began; no message."""
    chain: list[dict[str, Any]] = []
    cause: BaseException | None = error
    while cause is not None and len(chain) < 5:
        frames = traceback.extract_tb(cause.__traceback__)
        told = [frame for frame in frames[:-2] if _OURS in Path(frame.filename).parents] + frames[-2:]
        at = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in told]
        chain.append({"type": f"{type(cause).__module__}.{type(cause).__qualname__}", "at": at})
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return chain


def exposition() -> bytes:
    """Every metric in Prometheus' text format."""
    return generate_latest(REGISTRY)
