"""How long to wait before trying again."""

from __future__ import annotations

import random
from datetime import UTC, datetime

LONGEST_RETRY_AFTER = 300.0


def delay(failures: int, first: float, longest: float) -> float:
    """Return seconds to wait after so many failures in a row: doubling, with jitter down to half."""
    return min(longest, first * 2.0 ** min(failures - 1, 30)) * random.uniform(0.5, 1.0)  # noqa: S311 (no secret)


def jittered(interval: float) -> float:
    """Return an interval shifted by up to a fifth, so that a thousand processes do not ask at once."""
    return interval * random.uniform(0.8, 1.2)  # noqa: S311


def retry_after(header: str | None, now: float) -> float:
    """Return the seconds a Retry-After header asks for (RFC 9110, 10.2.3), at most five minutes; 0 when unreadable.

    Args:
        header: seconds, or an HTTP date.
        now: unix seconds.
    """
    if header is None:
        return 0.0
    try:
        if header.strip().isdecimal():
            seconds = float(header)
        else:
            from email.utils import parsedate_to_datetime  # which the import of the client would wait for

            seconds = (parsedate_to_datetime(header) - datetime.fromtimestamp(now, UTC)).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
