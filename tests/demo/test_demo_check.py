"""The demonstration itself: once as its check runs, and cut short, when nothing may be left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo")]
DEMO = [sys.executable, "-m", "rollout.demo"]


def children_of(parent: int) -> set[int]:
    """Live processes started by a process, read from /proc."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent and fields[0] != "Z":
                found.add(int(entry.name))
    return found


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_all_three_rollouts_end_as_they_must_according_to_the_public_api() -> None:
    done = subprocess.run([*DEMO, "--check"], capture_output=True, text=True, timeout=220)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["holds"] is True
    assert {name: each["outcome"] for name, each in found["rollouts"].items()} == {
        "better": "completed",
        "worse": "rolled_back",
        "same": "completed",
    }
    worse = found["rollouts"]["worse"]
    assert worse["breached"] == "answer_correct"
    assert worse["changes"][-1].startswith("roll_back")
    for each in found["rollouts"].values():
        assert each["users_exposed"] > 50
        assert each["decisions"] >= 3
        assert 0 < each["seconds_to_every_client"] <= each["seconds_at_most"] < 10
    assert found["probability"]["at_least"] >= 0.999
    assert found["evidence_lost"] == 0
    assert "\x1b" not in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demonstration_leaves_no_process_behind(sign: signal.Signals) -> None:
    demo = subprocess.Popen(DEMO, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    started: set[int] = set()
    deadline = time.monotonic() + 60
    while len(started) < 3 and time.monotonic() < deadline:  # the service and two app processes
        time.sleep(0.1)
        started = children_of(demo.pid)
    assert len(started) == 3
    demo.send_signal(sign)
    demo.send_signal(sign)  # an impatient person; the way out is not cut short
    _, said = demo.communicate(timeout=30)
    assert demo.returncode == 130
    assert said.split() == ["stopping", "...", "stopped"]
    assert not any(alive(process) for process in started)


def test_something_is_said_at_once_and_then_of_each_step() -> None:
    begun = time.monotonic()
    demo = subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert demo.stdout is not None
    assert demo.stdout.readline() == " Loading the demonstration ...\n"
    first = time.monotonic() - begun
    said = ""
    while "Posting the plans" not in said:
        said += demo.stdout.readline()
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=30)
    assert first < (time.monotonic() - begun) / 2
    assert "Starting a service" in said


def test_the_help_shows_the_defaults() -> None:
    done = subprocess.run([*DEMO, "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert "how many app processes share the traffic (default: 2)" in " ".join(done.stdout.split())


def test_a_service_that_does_not_start_is_a_clear_failure() -> None:
    done = subprocess.run(
        [*DEMO, "--check", "--database-url", "postgresql://nobody@127.0.0.1:1/none"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert "The demonstration failed: the service ended with code" in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["holds"] is False
