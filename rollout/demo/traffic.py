"""Who asks what, and when: real arrivals, sped up, from users who come again."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from rollout.demo.data import arrivals, questions

SPEED = 60.0
"""A minute of the recorded hour takes a second."""
USERS = 6_000
SEED = 20231116


class Request(NamedTuple):
    """One request: when it is due (seconds after the start), who asks, which question, and how long its context is."""

    due: float
    user: str
    question: int
    context_tokens: int


def requests(part: int = 0, parts: int = 1, speed: float = SPEED, seed: int = SEED) -> Iterator[Request]:
    """Every `parts`-th request from number `part` on, without end: after the recorded hour it begins again.

    Users and questions are drawn evenly from `seed`, so however many processes share the traffic, together they get
    the same requests.
    """
    trace = arrivals()
    hour = float(trace.at[-1]) + float(np.diff(trace.at).mean())
    lap = first = 0
    while True:
        rng = np.random.default_rng([seed, lap])
        users = rng.integers(0, USERS, trace.at.size)
        asked = rng.integers(0, len(questions()), trace.at.size)
        mine = slice((part - first) % parts, None, parts)
        columns = (trace.at[mine], users[mine], asked[mine], trace.context_tokens[mine])
        for at, user, question, tokens in zip(*(column.tolist() for column in columns), strict=True):
            yield Request((lap * hour + at) / speed, user_name(user), question, tokens)
        first = (first + trace.at.size) % parts
        lap += 1


def user_name(number: int) -> str:
    """The unit of a user, the same at every visit."""
    return f"user-{number:04d}"


def quietest_rate(speed: float = SPEED) -> float:
    """Requests per second in the quietest whole minute of the trace, at this speed."""
    at = arrivals().at
    per_minute = np.bincount((at // 60).astype(np.int64))[: int(at[-1] // 60)]
    return float(per_minute.min()) * speed / 60.0
