"""How the demonstration's data were made: `python -m rollout.demo.build ANSWERS.jsonl TRACE.csv TARGET_FOLDER`.

The same sources give the same bytes. `rollout/demo/data/README.md` names them.
"""

import csv
import gzip
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import msgspec

from rollout.demo.data import ARRIVALS_FILE, QUESTIONS_FILE, Answer, Question

MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


class Solution(msgspec.Struct, frozen=True):
    """A model's answer as published."""

    is_correct: bool
    solution: str


def pack_questions(published: Path) -> bytes:
    """The answers of all models, one question per line."""
    return _packed(_question(line) for line in published.read_bytes().splitlines())


def pack_arrivals(published: Path) -> bytes:
    """Rows of milliseconds since the first request, context tokens and generated tokens."""
    with published.open(newline="") as source:
        rows = [
            (datetime.fromisoformat(row["TIMESTAMP"][:26]), row["ContextTokens"], row["GeneratedTokens"])
            for row in csv.DictReader(source)
        ]
    first = rows[0][0]
    return _packed(
        f"{round((at - first).total_seconds() * 1000)},{context},{generated}".encode()
        for at, context, generated in rows
    )


def _question(line: bytes) -> bytes:
    raw = msgspec.json.decode(line)
    solutions = {model: msgspec.convert(raw[model], Solution) for model in MODELS}
    answers = {model: Answer(solution.solution, solution.is_correct) for model, solution in solutions.items()}
    return msgspec.json.encode(Question(raw["question"], answers))


def _packed(lines: Iterable[bytes]) -> bytes:
    return gzip.compress(b"\n".join(lines) + b"\n", compresslevel=9, mtime=0)


def main() -> None:
    """Write both files."""
    answers, trace, target = (Path(argument) for argument in sys.argv[1:])
    (target / QUESTIONS_FILE).write_bytes(pack_questions(answers))
    (target / ARRIVALS_FILE).write_bytes(pack_arrivals(trace))


if __name__ == "__main__":
    main()
