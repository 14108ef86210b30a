"""What can be tuned; the defaults suit a web service."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds, counts and bytes. Nobody has to set any of them.

    `flush_interval` and `flush_exposures` say when evidence is sent; outcomes never do. `stream_silence` is how
    long a stream may be silent (heartbeats come every five seconds) before it is dropped. `remembered_units` bounds
    the memory of who was exposed to what. `monotonic` and `clock` exist for tests.
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
    monotonic: Callable[[], float] = time.monotonic
    clock: Callable[[], float] = time.time
