"""Acts and the trail from the command line, by a rollout's id or by its flag."""

import json
import time

import pytest

from rollout.engine import replay as replaying
from tests.shell.http.command import Run
from tests.shell.http.server import Site


def test_a_flag_names_its_rollout_through_a_whole_life(site: Site, run: Run) -> None:
    site.populate()
    rollout = site.draft()
    for command, says in [
        ("start", "start: draft -> running, 0 % -> 10 %"),
        ("pause", "pause: running -> paused, 10 %"),
        ("resume", "resume: paused -> running, 10 %"),
        ("advance", "advance: running, 10 % -> 50 %"),
        ("roll-back", "roll back: running -> rolled back, 50 % -> 0 %"),
    ]:
        done = run(command, "answer", "--reason", f"why {command}")
        assert (done.code, done.out) == (0, f"{rollout}  {says}"), done.err
    history = run("history", "answer").out.splitlines()
    assert history[0] == rollout
    changes = [line for line in history[1:] if not line.startswith("    ")]  # deeper in are the verdicts of the looks
    assert [line.rpartition(": ")[2] for line in changes] == [
        f"why {command}" for command in ("start", "pause", "resume", "advance", "roll-back")
    ]
    assert list(json.loads(run("history", rollout, "--json").out)) == [rollout]
    ended = run("pause", "answer")
    assert (ended.code, "the rollout has ended" in ended.err) == (1, True)
    trail = run("audit", "--target", f"rollout:{rollout}", "-n", "3").out.splitlines()
    assert len(trail) == 3
    assert "rollout.roll_back" in trail[0]
    assert trail[0].endswith(": why roll-back")
    assert [each["action"] for each in json.loads(run("audit", "-n", "1", "--json").out)] == ["rollout.roll_back"]


def test_history_says_what_was_measured_when_a_rollout_was_moved(site: Site, run: Run) -> None:
    site.populate()
    rollout = site.draft()
    site.act(rollout, "start")
    deadline = time.monotonic() + 5
    while not site.http.get(f"/api/v1/rollouts/{rollout}/evaluations").json() and time.monotonic() < deadline:
        time.sleep(0.05)
    site.act(rollout, "pause", reason="lunch")
    started, paused, verdict = run("history", rollout).out.splitlines()[1:]
    assert "start: draft -> running" in started
    assert paused.endswith(": lunch")
    assert verdict.startswith("    error_rate: no request reached this stage lately: candidate none, baseline none,")
    assert "a rise beyond 5 points is harm" in verdict
    recorded = site.http.get(f"/api/v1/rollouts/{rollout}/transitions").json()[1]["change"]["verdicts"]
    assert [each["sentence"] for each in recorded] == [verdict.strip()]


def test_an_act_finds_the_running_rollout_behind_a_newer_draft(site: Site, run: Run) -> None:
    site.populate()
    running = site.draft()
    site.act(running, "start")
    draft = site.draft()
    assert run("pause", "answer").out.startswith(running)
    assert run("cancel", "answer").out.startswith(draft)
    assert run("cancel", draft).code == 1


def test_an_act_on_one_of_several_asks_which(site: Site, run: Run) -> None:
    site.populate()
    site.post("/api/v1/environments", {"key": "staging"})
    here, there = site.draft(), site.draft(environment="staging")
    asked = run("start", "answer")
    assert asked.code == 1
    assert "which one? give an id, or an environment with -e:" in asked.err
    assert here in asked.err
    assert there in asked.err
    assert run("start", "answer", "-e", "staging").out.startswith(there)
    wrong = run("start", here, "-e", "staging")
    assert (wrong.code, wrong.err.strip()) == (1, f"the rollout {here!r} is in production, not in staging")


def test_an_approval_is_given_from_the_command_line(site: Site, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    site.populate()
    stages = [{"name": "canary", "percentage": 10, "approval": "required"}, {"name": "half", "percentage": 50}]
    rollout = site.draft(stages=stages)
    run("start", rollout)
    monkeypatch.setenv("ROLLOUT_KEY", site.key("approver"))
    assert run("approve", "answer", "--reason", "read it").out == f"{rollout}  approve: running, 10 %"


def test_a_list_says_status_and_percentage(site: Site, run: Run) -> None:
    assert run("list").out == "there are no rollouts"
    site.populate()
    first = site.draft()
    site.act(first, "start")
    site.draft()
    lines = run("list").out.splitlines()
    assert [line.split()[1:4] for line in lines] == [["draft", "0", "%"], ["running", "10", "%"]]
    assert lines[1].startswith(first)
    assert lines[1].endswith("answer v7 -> v8 in production")
    assert run("status").out.splitlines() == lines
    assert len(run("list", "-n", "1").out.splitlines()) == 1
    assert run("list", "other").out == "there are no rollouts"
    assert json.loads(run("list", "answer", "--json").out)[1]["percentage"] == 10
    run("kill", "answer", "-e", "production")
    assert run("list").out.splitlines()[1].split()[1:4] == ["paused", "0", "%"]


def test_replay_takes_a_flag_as_status_does(site: Site, run: Run) -> None:
    site.populate()
    rollout = site.draft()
    site.act(rollout, "start")
    for name in (rollout, "answer"):
        done = run("replay", name)
        assert (done.code, done.out.startswith(f"{rollout}: ")) == (0, True), done.err
        assert done.out.endswith("every one came out as it was recorded")


def test_replay_says_which_looks_another_version_made(site: Site, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    site.populate()
    rollout = site.draft()
    site.act(rollout, "start")
    deadline = time.monotonic() + 5
    while not site.http.get(f"/api/v1/rollouts/{rollout}/evaluations").json() and time.monotonic() < deadline:
        time.sleep(0.05)
    monkeypatch.setattr(replaying, "ENGINE_VERSION", "rampline 9")
    monkeypatch.setattr(replaying, "digest", lambda _: "another")
    done = run("replay", rollout)
    assert done.code == 1
    assert "of these looks are another version's; its numbers may differ in their last digits" in done.err
    assert "say what no look said" not in done.err
