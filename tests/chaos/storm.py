"""The whole experiment: processes, a database with a replica, applications, rollouts, kills, a failover, findings."""

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benches._sdk.rows import ENVIRONMENT, ROOT, Row
from tests.chaos.cluster import Cluster, cluster
from tests.chaos.course import Course, Run, prepare
from tests.chaos.findings import WITHIN, Findings, find
from tests.chaos.fleet import Fleet, Monkey, fleet
from tests.chaos.watcher import Watcher


@dataclass(frozen=True)
class Weather:
    """How much of it. Times are in seconds; `applications` run beside each process that has the API."""

    seconds: float = 120.0
    roles: tuple[str, ...] = ("all", "api", "worker")
    flags: int = 2
    applications: int = 1
    per_second: float = 100.0
    seed: int = 1


def storm(weather: Weather, folder: Path) -> tuple[list[Row], Findings]:
    """Run it; the rows, and the faults in words."""
    flags = [f"answer-{number}" for number in range(weather.flags)]
    with cluster() as database, fleet(list(weather.roles), database.url, folder) as processes:
        key = prepare(processes, flags)
        watcher = Watcher(database, processes, key)
        watcher.start()
        courses = [Course(processes, flag) for flag in flags]
        with applications(processes, key, flags, weather) as serving:
            for course in courses:
                course.start()
            rage(weather, database, processes)
            for course in courses:
                course.stop()
            for course in courses:
                course.join()
            told = serving.end()
        time.sleep(1.0)
        watcher.stop()
        for course in courses:
            if course.failed is not None:
                raise course.failed
        runs = [run for course in courses for run in course.runs]
        with database.connect() as connection:
            findings = find(connection, processes, runs, watcher, told)
        return rows(findings, runs, processes, watcher), findings


def rage(weather: Weather, database: Cluster, processes: Fleet) -> None:
    """Kill for the whole time, and the primary in the middle of it; then let everything come up again."""
    monkey = Monkey(processes.members, weather.seed)
    monkey.start()
    time.sleep(weather.seconds / 2)
    database.fail_over()
    time.sleep(weather.seconds / 2)
    monkey.stop()
    processes.wait()


class Applications:
    """Processes with real clients."""

    def __init__(self, processes: Fleet, key: str, flags: list[str], weather: Weather) -> None:
        seeds = random.Random(weather.seed)
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.application", member.url, key, str(seeds.randrange(1 << 30)),
                 str(weather.per_second), *flags],
                cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True,
            )
            for member in processes.answering
            for _ in range(weather.applications)
        ]  # fmt: skip

    def end(self) -> list[dict[str, Any]]:
        """Let them send what is left, and tell what they counted."""
        said = [process.communicate("end\n", timeout=120)[0] for process in self._processes]
        return [json.loads(each) for each in said]

    def close(self) -> None:
        """End those that are left."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait()


@contextmanager
def applications(processes: Fleet, key: str, flags: list[str], weather: Weather) -> Iterator[Applications]:
    """Started applications, ended whatever happens."""
    opened = Applications(processes, key, flags, weather)
    try:
        yield opened
    finally:
        opened.close()


def rows(findings: Findings, runs: list[Run], processes: Fleet, watcher: Watcher) -> list[Row]:
    """The claims, and how much there was to go wrong."""
    harmful = [run for run in runs if run.harmful]
    delays = findings.delays
    claims = [Row(name, len(faults), "faults", target=0) for name, faults in findings.faults.items()]
    return [
        *claims,
        Row("rollback after the first batch of its look, engine up: longest", delays[-1] if delays else None, "s",
            target=WITHIN, also=len(delays) == len(harmful)),
        Row("the same: median", delays[len(delays) // 2] if delays else None, "s"),
        Row("batches accepted again after the replica was promoted, API up", watcher.recovered(), "s", target=WITHIN),
        Row("from the kill of the primary to the promotion of the replica", watcher.unwritable(), "s"),
        Row("rollouts: completed", sum(run.ended == "completed" for run in runs), ""),
        Row("rollouts: rolled back", sum(run.ended == "rolled_back" for run in runs), "", target=1, at_least=True),
        Row("processes killed with -9", sum(member.kills for member in processes.members), "", 1, at_least=True),
        Row("a look at the database from outside: longest, of 50 ms", watcher.longest_pause(), "s"),
        *(Row(f"recorded {name}", number, "") for name, number in findings.counts.items()),
    ]  # fmt: skip


def run(weather: Weather) -> tuple[list[Row], Findings]:
    """In a folder of its own, which is kept when something does not hold: it has the logs of the processes."""
    folder = Path(tempfile.mkdtemp(prefix="rampline-chaos-"))
    found, findings = storm(weather, folder)
    if all(row.holds for row in found):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    else:
        print(f"the logs of the processes are in {folder}", file=sys.stderr)
    return found, findings
