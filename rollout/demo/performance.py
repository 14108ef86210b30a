"""One performance of the demonstration: the service, the rollouts, their traffic, and what is said about them."""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rollout.demo import design, narrate
from rollout.demo.apps import Apps
from rollout.demo.course import Course, Took, Track
from rollout.demo.design import Figure
from rollout.demo.failure import DemoFailed
from rollout.demo.outcome import deviations, result, summary
from rollout.demo.panel import panel
from rollout.demo.screen import Screen
from rollout.demo.service import Api, Service

LEAST_SURE = 0.999
FOLLOW_SECONDS = 0.25
AFTERWARDS = 1.5
"""Seconds of traffic after the end, in which nobody may get anything else again."""


@contextmanager
def stage(asked: argparse.Namespace, screen: Screen) -> Iterator[tuple[Course, Service, Api, Figure]]:
    """A running service with running rollouts and their traffic; everything is gone afterwards, whatever happens."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rampline-demo-")))
        service = Service(folder, asked.database_url)
        stack.callback(service.stop)
        service.launch()
        screen.say(*narrate.beginning(asked.apps))
        screen.say(*narrate.preparing())
        figure = design.figure()
        if asked.check and figure.bound < LEAST_SURE:
            raise DemoFailed(f"the design is not sure enough: {design.sentence(figure)}")
        service.wait()
        screen.say(*narrate.started(service.url, figure))
        api = stack.enter_context(Api(service.url, service.key))
        apps = Apps(folder)
        stack.callback(apps.stop)
        course = Course(api, apps, asked.apps)
        course.set_up(service.url)
        screen.say(*narrate.legend())
        yield course, service, api, figure


def play(course: Course, service: Service, screen: Screen) -> Took:
    """Follow the rollouts to their end, and a little longer, with the panel as it was then.

    Raises:
        DemoFailed: it took too long, or something broke.
    """
    begun = time.monotonic()

    def changed(track: Track, transition: dict[str, Any]) -> None:
        screen.say(*narrate.change(track, transition, time.monotonic() - begun))

    took = None
    while took is None or time.monotonic() - begun < took.seconds + AFTERWARDS:
        service.check()
        course.follow(FOLLOW_SECONDS, changed)
        elapsed = time.monotonic() - begun
        if took is not None:
            continue
        screen.show(panel(course, elapsed, screen.width, screen.rows))
        if course.done:
            took = Took(elapsed, course.traffic.requests)
        elif elapsed > design.LONGEST_RUN:
            raise DemoFailed(f"not over after {elapsed:.0f} s: {'; '.join(map(standing, course.tracks))}")
    return took


def standing(track: Track) -> str:
    """Where a rollout stands, for a message."""
    held = "; ".join(reason["message"] for reason in track.status["held"])
    return f"{track.ramp.name} is {track.status['status']} with {len(track.settled)} clients through ({held})"


def demonstrate(asked: argparse.Namespace, screen: Screen) -> int:
    """All of it; the exit code."""
    with stage(asked, screen) as (course, service, api, figure):
        took = play(course, service, screen)
        results = {track.ramp.name: result(track, course.traffic, course.processes, api) for track in course.tracks}
        wrong = [each for track in course.tracks for each in deviations(track, results[track.ramp.name])]
        screen.close()
        screen.say(*narrate.ending(course, results, wrong, took))
        if not asked.check and sys.stdin.isatty() and sys.stdout.isatty():
            screen.say(*narrate.how_to_look(service.url, service.key, command()))
            wait_for_interrupt(service)
    if asked.check:
        print(summary(course, results, wrong, (figure, took)))
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
