"""Circuit breakers: a variant that fails again and again is not called for a while, in this process.

One breaker per flag and variant, which is what an arm calls. Both arms have one, with the same rule: a breaker on the
candidate alone would turn an outage that hits both into failures of the candidate. The request that a breaker cuts
short is a failure of the arm it was assigned to, as if the call had been made; the breaker selects no data.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from rollout_client import native
from rollout_client.failure import FailureKind

TRIPPING: frozenset[FailureKind] = frozenset(
    {"timeout", "provider_error", "rate_limited", "schema_invalid", "tool_error", "other"}
)
"""Failures that say something of the variant. The others depend on what is asked: one user must not open a breaker."""


class BreakerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """When a breaker opens, and when it lets a call through again.

    It opens after `consecutive` failures in a row, or when a share of `rate` of the last `calls` calls within `window`
    seconds failed. After `cooldown` seconds one call may try; it closes the breaker or opens it again.
    """

    consecutive: int = 5
    rate: float = 0.5
    calls: int = 20
    window: float = 60.0
    cooldown: float = 10.0


class Breaker:
    """The breaker of one variant of one flag. `admits` costs one comparison while it is closed."""

    __slots__ = ("_failed", "_lock", "_options", "_row", "_seen", "_trying", "_until", "kind")

    def __init__(self, options: BreakerOptions) -> None:
        self.kind: FailureKind = "other"
        self._options = options
        self._until: float | None = None
        self._seen: deque[tuple[float, bool]] = deque()
        self._failed = self._row = 0
        self._trying = False
        self._lock = native.rlock()

    @property
    def is_open(self) -> bool:
        """Whether calls are cut short, but for the one that may try."""
        return self._until is not None

    def admits(self, now: float) -> bool:
        """Whether a call may be made. While the breaker is open, one may after each cool-down."""
        if self._until is None:
            return True
        with self._lock:
            if now < (self._until or 0.0):  # closed meanwhile: it costs nothing to be the one that tries
                return False
            if not self.is_open:
                return True
            self._trying = True
            self._until = now + self._options.cooldown  # the next one may try if this one never says how it went
            return True

    def succeeded(self, now: float) -> bool:
        """Take note of a call that answered; True when that closed the breaker."""
        with self._lock:
            if self._until is None:
                self._row = 0
                self._note(now, False)
                return False
            if not self._trying:  # it was made before the breaker opened
                return False
            self._until = None
            self._trying = False
            self._seen.clear()
            self._failed = self._row = 0
            return True

    def failed(self, kind: FailureKind, now: float) -> bool:
        """Take note of a call that failed; True when that opened the breaker."""
        with self._lock:
            if self._until is not None:
                if self._trying:
                    self._trying, self._until = False, now + self._options.cooldown
                return False
            self._note(now, True)
            self._row += 1
            options = self._options
            full = len(self._seen) >= options.calls and self._failed >= options.rate * len(self._seen)
            if self._row < options.consecutive and not full:
                return False
            self.kind = kind
            self._until = now + options.cooldown
            return True

    def _note(self, now: float, failed: bool) -> None:
        seen = self._seen
        while seen and (now - seen[0][0] > self._options.window or len(seen) >= self._options.calls):
            self._failed -= seen.popleft()[1]
        if not seen:
            self._row = 0
        seen.append((now, failed))
        self._failed += failed


class Breakers:
    """The breakers of one client, made when they are first asked for."""

    def __init__(self, options: BreakerOptions, monotonic: Callable[[], float]) -> None:
        self._options = options
        self.now = monotonic
        self._held: dict[tuple[str, str], Breaker] = {}

    def of(self, flag: str, variant: str) -> Breaker:
        """Return the breaker of a variant that the ruleset knows: there are no more of them than variants."""
        found = self._held.get((flag, variant))
        return self._held.setdefault((flag, variant), Breaker(self._options)) if found is None else found

    def open(self) -> dict[str, FailureKind]:
        """Return "flag/variant" of those that are open, with the kind of failure that opened each."""
        return {f"{flag}/{variant}": held.kind for (flag, variant), held in list(self._held.items()) if held.is_open}
