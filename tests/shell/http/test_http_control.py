"""What people change about a rollout that runs, over HTTP: its plan, waivers, completion, schedules, sources."""

import json
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.shell.http.command import Run
from tests.shell.http.server import ROLLOUT, Site

CANARY, HALF = ROLLOUT["stages"]


def started(site: Site, **changes: object) -> str:
    site.populate()
    rollout = site.draft(**changes)
    site.act(rollout, "start")
    return rollout


def test_a_plan_is_replaced_by_its_next_version_and_the_path_of_what_must_stay_is_said(each_site: Site) -> None:
    site = each_site
    rollout = started(site)
    further = {**ROLLOUT, "stages": [CANARY, {**HALF, "percentage": 60}]}
    address = f"/api/v1/rollouts/{rollout}"
    done = site.http.put(address, json={"document": further, "reason": "more at once", "revision": 2})
    assert (done.status_code, done.json()["change"]["step"]) == (200, "revise"), done.text
    record = site.http.get(address).json()
    assert record["document"]["stages"][1]["percentage"] == 60
    assert record["state"]["document"] == 2
    other = {**further, "stages": [{**CANARY, "percentage": 20}, further["stages"][1]]}
    refused = site.http.put(address, json={"document": other, "reason": "wider"})
    assert (refused.status_code, refused.json()["path"]) == (422, "stages[0].percentage")
    stale = site.http.put(address, json={"document": ROLLOUT, "reason": "back", "revision": 2})
    assert stale.status_code == 409
    assert site.http.put("/api/v1/rollouts/ro_none", json={"document": ROLLOUT}).status_code == 404


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"reason": "sure", "expires": "1h"}, "metric"),
        ({"reason": "sure", "expires": "1h", "metric": "joy"}, "metric"),
        ({"reason": "sure", "metric": "error_rate"}, "expires"),
        ({"reason": "sure", "metric": "error_rate", "expires": "soon"}, "expires"),
        ({"reason": "sure", "metric": "error_rate", "expires": "1000d"}, "expires"),
        ({"reason": "sure", "metric": "error_rate", "expires": "1h", "stage": "moon"}, "stage"),
        ({"metric": "error_rate", "expires": "1h"}, "reason"),
    ],
)
def test_a_waiver_says_what_for_how_long_and_why(site: Site, body: dict[str, str], path: str) -> None:
    rollout = started(site)
    refused = site.http.post(f"/api/v1/rollouts/{rollout}/actions/waive", json=body)
    assert (refused.status_code, refused.json()["path"]) == (422, path)


def test_waiving_and_completing_from_the_command_line(site: Site, run: Run) -> None:
    rollout = started(site)
    waived = run("waive", "answer", "error_rate", "--for", "2h", "--reason", "known and fixed")
    assert (waived.code, waived.out) == (0, f"{rollout}  waive: running, 10 %"), waived.err
    said = run("status", "answer").out
    assert "waived error_rate by admin" in said
    assert "known and fixed" in said
    done = run("complete", "answer", "--reason", "everybody knows it works")
    assert done.out == f"{rollout}  complete: running -> completed, 10 % -> 100 %"


def test_a_rollout_can_be_scheduled_and_says_when_it_starts(site: Site, run: Run) -> None:
    rollout = started(site, start_at="2100-01-01T09:00:00Z")
    status = site.http.get(f"/api/v1/rollouts/{rollout}/status").json()
    assert (status["status"], status["next_change"]["not_before"]) == ("scheduled", "2100-01-01T09:00:00Z")
    assert "starts at 2100-01-01 09:00:00 UTC" in run("status", "answer").out
    assert run("cancel", "answer").code == 0
    naive = site.http.post("/api/v1/rollouts", json={**ROLLOUT, "start_at": "2100-01-01T09:00:00"})
    assert (naive.status_code, naive.json()["path"]) == (422, "start_at")


def test_a_source_reports_its_failures_and_its_recovery(site: Site) -> None:
    site.populate()
    report = "/api/v1/metrics/error_rate/reports"
    counts = [
        site.post(report, {"environment": "production", "error": error})["failures"]
        for error in ("timed out", "timed out", None, "refused")
    ]
    assert counts == [1, 2, 0, 1]
    tricky = {"environment": "production", "error": "refused\x1b[2J\nall is well\0"}
    assert site.post(report, tricky)["failures"] == 2, "no text can break what it is shown on or stored in"
    assert site.http.post(report, json={"environment": "moon"}).status_code == 404
    assert site.http.post("/api/v1/metrics/joy/reports", json={"environment": "production"}).status_code == 404


def test_metrics_name_each_live_rollout_with_its_state(site: Site) -> None:
    rollout = started(site)
    said = site.http.get("/metrics").text
    named = f'environment="production",flag="answer",rollout="{rollout}"'
    assert f'rampline_rollout_state{{{named},status="running"}} 1.0' in said
    assert f"rampline_rollout_percentage{{{named}}} 10.0" in said
    site.act(rollout, "roll_back")
    assert rollout not in site.http.get("/metrics").text


def test_apply_means_the_rollout_that_runs_and_no_draft_beside_it(site: Site, run: Run, tmp_path: Path) -> None:
    running = started(site)
    site.draft()
    path = tmp_path / "rollout.yaml"
    path.write_text(json.dumps({"kind": "Rollout", **ROLLOUT}))
    for _ in range(2):
        said = run("apply", "-f", str(path), "--start")
        assert (said.code, said.out.endswith(f"unchanged, {running}, running")) == (0, True), said.err
    path.write_text(json.dumps({"kind": "Rollout", **ROLLOUT, "stages": [CANARY, {**HALF, "percentage": 60}]}))
    assert run("apply", "-f", str(path)).out.endswith(f"changed, {running}, running")


def test_the_default_variant_stays_while_a_rollout_runs(site: Site) -> None:
    rollout = started(site)
    flag = site.http.get("/api/v1/flags/answer").json()
    moved = site.http.put("/api/v1/flags/answer", json={**flag, "default_variant": "v8"})
    assert (moved.status_code, moved.json()["path"]) == (409, "default_variant")
    assert rollout in moved.json()["detail"]
    assert site.http.put("/api/v1/flags/answer", json={**flag, "description": "edited"}).status_code == 200
    site.act(rollout, "roll_back")
    assert site.http.put("/api/v1/flags/answer", json={**flag, "default_variant": "v8"}).status_code == 200


def test_a_status_says_why_a_rollout_ended_and_who_still_has_the_candidate(site: Site, run: Run) -> None:
    rollout = started(site)
    site.act(rollout, "pause", reason="lunch")
    assert f"still  10 % have the candidate; to take it away: rollout roll-back {rollout}" in run("status", rollout).out
    site.act(rollout, "roll_back", reason="it burns")
    said = run("status", rollout).out
    assert "last   roll back at" in said
    assert ": it burns" in said


def test_a_status_says_when_the_plan_acts_on_evidence_that_is_missing(site: Site, run: Run) -> None:
    guarded = {"metric": "error_rate", "max_regression": {"absolute": 0.02}, "on_missing": {
        "no_traffic": {"then": "roll_back", "after": "2h"}, "no_data": "pause",
    }, "budget": {"per_day": 500}}  # fmt: skip
    rollout = started(site, guardrails=[guarded])
    deadline = time.monotonic() + 5
    while not (status := site.http.get(f"/api/v1/rollouts/{rollout}/status").json())["pending"]:
        assert time.monotonic() < deadline, status
        time.sleep(0.05)
    [pending] = status["pending"]
    assert (pending["metric"], pending["verdict"], pending["then"]) == ("error_rate", "no_traffic", "roll_back")
    assert datetime.fromisoformat(pending["at"]) - datetime.fromisoformat(pending["since"]) == timedelta(hours=2)
    assert status["budgets"]["error_rate"]["per_day"] == 500
    said = run("status", "answer").out
    assert f"soon   roll back at {pending['at']}, unless evidence of error_rate comes (no traffic)" in said
    assert "spent 0 of 500 today and 0 in this stage" in said
    site.act(rollout, "waive", reason="known", metric="error_rate", expires="1h")
    assert site.http.get(f"/api/v1/rollouts/{rollout}/status").json()["pending"] == []


def test_kill_and_restore_say_whom_they_pause_and_what_then(site: Site, run: Run) -> None:
    rollout = started(site)
    assert f"{rollout} is paused, and exposes nobody" in run("kill", "answer", "-e", "production").out
    assert "(flag killed)" in run("list").out
    assert f"rollout resume {rollout}" in run("restore", "answer", "-e", "production").out
    assert "the flag was killed, and is restored" in run("status", "answer").out
    assert run("resume", "answer").code == 0
    assert "killed" not in run("status", "answer").out
    assert "the flag was killed" in run("history", "answer").out
