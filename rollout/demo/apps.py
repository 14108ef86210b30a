"""The app processes: started, told to go, listened to, and ended."""

import contextlib
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue

import msgspec

from rollout.demo.failure import DemoFailed
from rollout.demo.reports import Order, Ready, Report
from rollout.demo.undisturbed import undisturbed

START_TIMEOUT = 40.0
STOP_TIMEOUT = 6.0


class Apps:
    """Some app processes, each with its own client and its own share of the traffic."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._reports: SimpleQueue[tuple[int, Report]] = SimpleQueue()

    def start(self, orders: list[Order]) -> None:
        """Start one process for each order and wait until every client has its ruleset.

        Raises:
            DemoFailed: one of them ended, or took too long.
        """
        for order in orders:
            self._start(order)
        waiting = set(range(len(orders)))
        deadline = time.monotonic() + START_TIMEOUT
        while waiting:
            for part, report in self.take(0.2):
                if isinstance(report, Ready):
                    waiting.discard(part)
            if time.monotonic() > deadline:
                raise DemoFailed(f"app processes {sorted(waiting)} were not ready within {START_TIMEOUT:.0f} s")

    def go(self) -> None:
        """Let the traffic begin."""
        for process in self._processes:
            _write(process, b"go\n")

    def take(self, timeout: float) -> list[tuple[int, Report]]:
        """What they said since the last take, with the number of who said it; waits for the first for a while.

        Raises:
            DemoFailed: a process ended.
        """
        taken = []
        try:
            taken.append(self._reports.get(timeout=timeout))
            while True:
                taken.append(self._reports.get_nowait())
        except Empty:
            self._check()
            return taken

    def stop(self) -> None:
        """End all of them; an app ends by itself when its standard input does."""
        for process in self._processes:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        deadline = time.monotonic() + STOP_TIMEOUT
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes = []

    def _start(self, order: Order) -> None:
        part = order.part
        with self._log(part).open("wb") as log, undisturbed():
            process = subprocess.Popen(
                [sys.executable, "-m", "rollout.demo.app"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
            self._processes.append(process)
        _write(process, msgspec.json.encode(order) + b"\n")
        threading.Thread(target=self._listen, args=(part, process), daemon=True).start()

    def _listen(self, part: int, process: subprocess.Popen[bytes]) -> None:
        decoder = msgspec.json.Decoder(Report)
        assert process.stdout is not None
        with process.stdout as said:
            for line in said:
                self._reports.put((part, decoder.decode(line)))

    def _check(self) -> None:
        for part, process in enumerate(self._processes):
            if process.poll() is not None:
                said = self._log(part).read_text(encoding="utf-8", errors="replace").strip()
                raise DemoFailed(f"app process {part} ended with code {process.returncode}: {said[-1500:]}")

    def _log(self, part: int) -> Path:
        return self._folder / f"app-{part}.log"


def _write(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has ended; the next take says why
        process.stdin.write(line)
        process.stdin.flush()
