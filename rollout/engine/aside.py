"""Work that would hold the loop up, done by a process of its own: forecasts and backtests.

A process for each piece of work, not a pool of workers: one that runs too long, or for somebody who has gone, is simply
killed, and its memory goes back whole. The price is a second to start it. Not a thread: numpy holds the interpreter
long enough for a heartbeat to be late.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator
from typing import Literal

import structlog

from rollout.errors import RolloutError

Job = Literal["forecast", "backtest"]
AT_ONCE = 1
"""Processes side by side; the engine needs the other processors."""
SECONDS = 60.0
_log = structlog.get_logger("rollout.engine")


class Busy(RolloutError):
    """As many forecasts and backtests as may run are running; wait a few seconds (Retry-After) and try again."""

    status = 429
    title = "Too many requests"
    retry_after = 5


class TooLong(RolloutError):
    """The work took too long and was stopped."""

    status = 422
    title = "Too much work"

    def __init__(self, seconds: float, advice: str) -> None:
        super().__init__(f"stopped after {seconds:g} s: {advice}")


class Stopping(RolloutError):
    """The service is stopping; ask again when it is back."""

    status = 503
    title = "Unavailable"


class Failed(RolloutError):
    """The work failed; the service's log says where."""


_ADVICE: dict[Job, str] = {
    "forecast": "ask for fewer runs, fewer regressions, or a shorter horizon",
    "backtest": "the log is too long to be replayed here",
}


class Aside:
    """At most `most` processes at a time, each for at most so many seconds."""

    def __init__(self, most: int = AT_ONCE, seconds: float = SECONDS) -> None:
        self._most, self._seconds = most, seconds
        self._taken = 0
        self._running: set[asyncio.subprocess.Process] = set()
        self._closed = False

    async def run(self, job: Job, lines: AsyncGenerator[bytes]) -> bytes:
        """What the work answers to the lines it is given. Whatever ends this call ends the process.

        Raises:
            Busy: no place is free; at once.
            TooLong: the time is over.
            Stopping: `close` was called before the end.
            Failed: the process broke.
        """
        if self._closed:
            raise Stopping
        if self._taken >= self._most:
            raise Busy
        self._taken += 1
        try:
            async with asyncio.timeout(self._seconds):
                return await self._work(job, lines)
        except TimeoutError:
            raise TooLong(self._seconds, _ADVICE[job]) from None
        finally:
            self._taken -= 1

    def command(self, job: Job) -> tuple[str, ...]:
        """How the process is started; it ends by itself soon after its time, should nobody be there to end it."""
        return (sys.executable, "-m", "rollout.engine.worker", job, str(self._seconds))

    async def close(self) -> None:
        """Kill whatever runs; nothing runs afterwards."""
        self._closed = True
        for process in self._running:
            _kill(process)

    async def _work(self, job: Job, lines: AsyncGenerator[bytes]) -> bytes:
        process = await asyncio.create_subprocess_exec(
            *self.command(job),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
        )
        self._running.add(process)
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            _, answer, said = await asyncio.gather(
                _feed(process.stdin, lines), process.stdout.read(), process.stderr.read()
            )
            await process.wait()
        finally:
            _kill(process)
            await process.wait()
            self._running.discard(process)
        if self._closed:
            raise Stopping
        if process.returncode:
            _log.error(
                "work aside failed", job=job, code=process.returncode, said=said.decode(errors="replace")[-2000:]
            )
            raise Failed
        return answer


async def _feed(stdin: asyncio.StreamWriter, lines: AsyncGenerator[bytes]) -> None:
    """Line by line, as fast as they are read; a process that has ended reads no more."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        async with contextlib.aclosing(lines):
            async for line in lines:
                stdin.write(line)
                await stdin.drain()
        stdin.close()


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        if process.returncode is None:
            process.kill()


def _environment() -> dict[str, str]:
    """Nothing that only the service should know, and one thread for the arithmetic."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ROLLOUT_")}
    return {**kept, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
