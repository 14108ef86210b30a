"""What the demonstration knows of the world: real questions with real answers, and the arrivals of a real service."""

import csv
import gzip
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

QUESTIONS_FILE = "questions.jsonl.gz"
ARRIVALS_FILE = "arrivals.csv.gz"


class Answer(msgspec.Struct, frozen=True):
    """What a model answered, word for word, and whether its result was right."""

    text: str
    correct: bool


class Question(msgspec.Struct, frozen=True):
    """A question, and the recorded answer of each model by its name."""

    text: str
    answers: dict[str, Answer]


class Arrivals(NamedTuple):
    """One hour of requests in the order of arrival; arrays of one length.

    Attributes:
        at: seconds since the first request.
        context_tokens: tokens each request brought along.
        generated_tokens: tokens each was answered with.
    """

    at: NDArray[np.float64]
    context_tokens: NDArray[np.int64]
    generated_tokens: NDArray[np.int64]


@cache
def questions() -> tuple[Question, ...]:
    """All questions, in the order of the published file."""
    decoder = msgspec.json.Decoder(Question)
    return tuple(decoder.decode(line) for line in _lines(QUESTIONS_FILE))


@cache
def arrivals() -> Arrivals:
    """The whole trace."""
    rows = np.array([[int(cell) for cell in row] for row in csv.reader(_lines(ARRIVALS_FILE))], np.int64)
    return Arrivals(rows[:, 0] / 1000.0, rows[:, 1], rows[:, 2])


def correct_rate(model: str) -> float:
    """Part of all questions that a model answered correctly, 0 to 1.

    Raises:
        KeyError: there is no such model.
    """
    return sum(question.answers[model].correct for question in questions()) / len(questions())


def _lines(name: str) -> Iterator[str]:
    packed = (files("rollout.demo") / "data" / name).read_bytes()
    return iter(gzip.decompress(packed).decode().splitlines())
