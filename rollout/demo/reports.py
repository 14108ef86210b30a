"""What an app process is told and what it says: one JSON document a line."""

import msgspec


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """The first line an app reads: where the service is, which flags to serve, and its share of the traffic."""

    url: str
    key: str
    environment: str
    flags: tuple[str, ...]
    part: int
    parts: int
    speed: float


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The client has its first ruleset."""


class Flush(msgspec.Struct, frozen=True, array_like=True):
    """One batch of evidence: when it was handed to the network, and when its acknowledgement came (unix seconds)."""

    sent: float
    acknowledged: float


class Exchange(msgspec.Struct, frozen=True):
    """One question as a user saw it answered; shown, not counted."""

    flag: str
    user: str
    model: str
    question: str
    answer: str
    correct: bool


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Since the last one: requests answered, seconds behind the clock, batches acknowledged, evidence lost."""

    requests: int
    behind: float
    flushes: tuple[Flush, ...]
    lost: int
    exchange: Exchange | None


class Settled(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A user got the first answer after the end of the flag's rollout: which variant, in which ruleset, and when."""

    flag: str
    variant: str | None
    revision: int
    at: float


class Unsettled(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """After the end, a user got something else again: this must never happen."""

    flag: str
    variant: str | None
    revision: int


Report = Ready | Progress | Settled | Unsettled
