"""`python3 dev.py demo`: three real rollouts in the terminal; `--check` proves that they end as they must."""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rollout.demo import design, narrate
from rollout.demo.apps import Apps
from rollout.demo.course import Course, Track
from rollout.demo.design import Figure
from rollout.demo.failure import DemoFailed
from rollout.demo.outcome import deviations, result, summary
from rollout.demo.panel import panel
from rollout.demo.screen import Screen
from rollout.demo.service import Api, Service

LEAST_SURE = 0.999
MOST_APPS = 16
FOLLOW_SECONDS = 0.25
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AFTERWARDS = 1.5
"""Seconds of traffic after the end, in which nobody may get anything else again."""


def options(argv: list[str] | None = None) -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(prog="dev.py demo", description=__doc__.replace("`", ""))
    parser.add_argument("--check", action="store_true", help="no panel; exit 0 only if all outcomes are right")
    parser.add_argument("--database-url", help="a PostgreSQL database, instead of a temporary SQLite file")
    parser.add_argument("--apps", type=int, default=2, help="how many app processes share the traffic (2)")
    asked = parser.parse_args(argv)
    if not 1 <= asked.apps <= MOST_APPS:
        parser.error(f"--apps: choose 1 to {MOST_APPS} processes")
    return asked


@contextmanager
def stage(asked: argparse.Namespace, screen: Screen) -> Iterator[tuple[Course, Service, Api, Figure]]:
    """A running service with running rollouts and their traffic; everything is gone afterwards, whatever happens."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rampline-demo-")))
        service = Service(folder, asked.database_url)
        stack.callback(service.stop)
        service.launch()
        screen.say(*narrate.beginning(asked.apps))
        screen.show(narrate.preparing())
        figure = design.figure()
        if asked.check and figure.bound < LEAST_SURE:
            raise DemoFailed(f"the design is not sure enough: {design.sentence(figure)}")
        service.wait()
        screen.show([])
        screen.say(*narrate.started(service.url, figure))
        api = stack.enter_context(Api(service.url, service.key))
        apps = Apps(folder)
        stack.callback(apps.stop)
        course = Course(api, apps, asked.apps)
        course.set_up(service.url)
        yield course, service, api, figure


def play(course: Course, service: Service, screen: Screen) -> float:
    """Follow the rollouts to their end; the seconds it took.

    Raises:
        DemoFailed: it took too long, or something broke.
    """
    begun = time.monotonic()

    def changed(track: Track, transition: dict[str, Any]) -> None:
        screen.say(*narrate.change(track, transition, time.monotonic() - begun))

    ended = None
    while ended is None or time.monotonic() - ended < AFTERWARDS:
        service.check()
        course.follow(FOLLOW_SECONDS, changed)
        elapsed = time.monotonic() - begun
        screen.show(panel(course, elapsed, screen.width))
        if ended is None and course.done:
            ended = time.monotonic()
        if ended is None and elapsed > design.LONGEST_RUN:
            raise DemoFailed(f"not over after {elapsed:.0f} s: {'; '.join(map(standing, course.tracks))}")
    return ended - begun


def standing(track: Track) -> str:
    """Where a rollout stands, for a message."""
    held = "; ".join(reason["message"] for reason in track.status["held"])
    return f"{track.ramp.name} is {track.status['status']} with {len(track.settled)} clients through ({held})"


def demonstrate(asked: argparse.Namespace, screen: Screen) -> int:
    """All of it; the exit code."""
    with stage(asked, screen) as (course, service, api, figure):
        elapsed = play(course, service, screen)
        results = {track.ramp.name: result(track, course.traffic, course.processes, api) for track in course.tracks}
        wrong = [each for track in course.tracks for each in deviations(track, results[track.ramp.name])]
        screen.close()
        screen.say(*narrate.ending(course, results, wrong, elapsed))
        if not asked.check and sys.stdin.isatty() and sys.stdout.isatty():
            screen.say(*narrate.how_to_look(service.url, service.key, command()))
            wait_for_interrupt(service)
    if asked.check:
        print(summary(course, results, wrong, (figure, elapsed)))
    return 1 if wrong else 0


def command() -> str:
    """How to call `rollout` from here."""
    beside = Path(sys.executable).with_name("rollout")
    return os.path.relpath(beside) if beside.exists() else f"{sys.executable} -m rollout"


def wait_for_interrupt(service: Service) -> None:
    """Return on Ctrl-C; raise DemoFailed when the service ends by itself."""
    try:
        while True:
            service.check()
            time.sleep(0.5)
    except KeyboardInterrupt:
        return


def interrupted(_: int, __: FrameType | None) -> None:
    """Any signal to end is an interrupt: what was started is stopped on the way out, which no second one cuts short."""
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """Run the demonstration."""
    asked = options()
    for number in ENDING:
        signal.signal(number, interrupted)
    live = sys.stdout.isatty() and not asked.check
    screen = Screen(sys.stdout, live=live, colour=live and "NO_COLOR" not in os.environ)
    try:
        return demonstrate(asked, screen)
    except DemoFailed as error:
        screen.close()
        print(f"The demonstration failed: {error}", file=sys.stderr)
        if asked.check:
            print(json.dumps({"holds": False, "deviations": [str(error)]}))
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        screen.close()


if __name__ == "__main__":
    sys.exit(main())
