"""What `rollout ARGUMENTS` answered, for tests of the command line."""

from typing import NamedTuple, Protocol


class Result(NamedTuple):
    code: int
    out: str
    err: str


class Run(Protocol):
    def __call__(self, *arguments: str) -> Result: ...
