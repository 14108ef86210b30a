"""What can be tuned; the defaults suit a web service."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import msgspec

from rollout_client.breaker import BreakerOptions
from rollout_client.evaluation.evidence import Alert
from rollout_client.failure import FailureKind, classify, classify_response
from rollout_client.usage import Prices


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds, counts and bytes. Nobody has to set any of them.

    `flush_interval` and `flush_exposures` say when evidence is sent; outcomes never do. `stream_silence` is how
    long a stream may be silent (heartbeats come every five seconds) before it is dropped. `remembered_units` bounds
    the memory of who was exposed to what. `monotonic` and `clock` exist for tests.

    `exit_timeout` is what sending may take when the process ends, and `handle_sigterm` lets SIGTERM wait for it where
    nothing else handles that signal. `spool_dir` is a folder for what could not be sent by then, at most `spool_bytes`
    of it; the next process that has the same folder sends it.

    `kill_file` names flags that are killed in this process; it is read again every second.

    `breaker` says when circuit breakers open (None: there are none), and `on_alert` is told when one did, in the thread
    of the call that failed, so it must return at once. `prices` turns tokens into `cost_usd`. `classify` and
    `classify_response` say why a call failed; they take the place of `rollout_client.classify` and
    `rollout_client.classify_response`, and may call them.
    """

    flush_interval: float = 1.0
    flush_exposures: int = 5_000
    poll_interval: float = 5.0
    connect_timeout: float = 3.0
    answer_timeout: float = 10.0
    stream_silence: float = 15.0
    backoff_first: float = 0.5
    backoff_longest: float = 30.0
    pending_batches: int = 64
    batch_bytes: int = 512_000
    remembered_units: int = 50_000
    exit_timeout: float = 2.0
    handle_sigterm: bool = True
    spool_dir: str | os.PathLike[str] | None = None
    spool_bytes: int = 8_000_000
    kill_file: str | os.PathLike[str] | None = None
    breaker: BreakerOptions | None = BreakerOptions()
    on_alert: Callable[[Alert], object] | None = None
    prices: Prices | None = None
    classify: Callable[[BaseException], FailureKind] = classify
    classify_response: Callable[[Any], FailureKind | None] = classify_response
    monotonic: Callable[[], float] = time.monotonic
    clock: Callable[[], float] = time.time
