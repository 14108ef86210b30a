"""How often one key may ask, in this process: a bucket of a minute's requests that refills all the time."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import ceil
from time import monotonic

from rollout.errors import RolloutError


class TooMany(RolloutError):
    """This key asks too often."""

    status = 429
    title = "Too many requests"

    def __init__(self, wait: float) -> None:
        self.retry_after = max(1, ceil(wait))
        super().__init__(f"this key asks too often; wait {self.retry_after} s (the header Retry-After) and try again")


@dataclass(frozen=True, slots=True)
class Rates:
    """Requests per minute and key: rulesets and streams, batches of evidence, everything else."""

    read: int
    evidence: int
    api: int

    def of(self, admitted: Collection[str]) -> tuple[str, int]:
        """The name and rate of the class a route belongs to, by whom it admits."""
        if "sdk:evidence" in admitted:
            return "evidence", self.evidence
        return ("read", self.read) if "sdk:read" in admitted else ("api", self.api)


class Limiter:
    """One bucket per key and class. Only known keys are counted, so there are as many buckets as keys."""

    def __init__(self, rates: Rates, clock: Callable[[], float] = monotonic) -> None:
        self._rates = rates
        self._clock = clock
        self._buckets: dict[tuple[str, str], tuple[float, float]] = {}

    def count(self, key: str, admitted: Collection[str]) -> None:
        """Take one request from the key's bucket; raises TooMany when it is empty."""
        name, rate = self._rates.of(admitted)
        now = self._clock()
        left, since = self._buckets.get((key, name), (float(rate), now))
        left = min(float(rate), left + (now - since) * rate / 60)
        if left < 1:
            self._buckets[key, name] = (left, now)
            raise TooMany((1 - left) * 60 / rate)
        self._buckets[key, name] = (left - 1, now)
