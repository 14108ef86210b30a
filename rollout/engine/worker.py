"""The process beside the service: `python -m rollout.engine.worker JOB SECONDS`, lines in, one JSON document out.

It asks for less of the processor than the service does, and ends itself when its time is over, so that it outlives
nobody who could kill it by much.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from rollout.domain.backtest import Backtest
from rollout.domain.expectation import Expectation
from rollout.domain.forecast import Forecast, forecast
from rollout.domain.metric import Metric
from rollout.domain.plan import PlanBody

NICE = 3
"""Enough to let the service go first; with ten, two seconds of work take more than a minute on a busy machine."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The one line of a forecast; its documents have no problems."""

    plan: PlanBody
    metrics: dict[str, Metric]
    expectation: Expectation


def main() -> None:
    """Do the work and write its answer."""
    job, seconds = sys.argv[1:]
    os.nice(NICE)
    signal.alarm(int(float(seconds)) + 5)
    answer = _JOBS[job](sys.stdin.buffer)
    sys.stdout.buffer.write(msgspec.json.encode(answer))


def _forecast(lines: Iterable[bytes]) -> Forecast:
    wanted = msgspec.json.decode(b"".join(lines), type=Wanted)
    return forecast(wanted.plan, wanted.metrics, wanted.expectation)


def _backtest(lines: Iterable[bytes]) -> Backtest:
    from rollout.engine.backtest import run  # a forecast need not wait for the database's libraries to be imported

    return run(lines)


_JOBS: dict[str, Callable[[Iterable[bytes]], Any]] = {"forecast": _forecast, "backtest": _backtest}

if __name__ == "__main__":
    main()
