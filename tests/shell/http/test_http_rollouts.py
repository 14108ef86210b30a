"""Rollouts over HTTP: what is refused on save, acts, and what a status says."""

import time
from typing import Any

import pytest

from tests.shell.http.server import ROLLOUT, Site

CANARY, HALF = ROLLOUT["stages"]


@pytest.mark.parametrize(
    ("changes", "path", "says"),
    [
        ({"speed": "fast"}, "speed", "remove it or correct its name"),
        ({"stages": [{**CANARY, "percent": 1}]}, "stages[0].percent", "remove it or correct its name"),
        ({"stages": [{**CANARY, "cohort": "board"}]}, "stages[0].cohort", "create it first"),
        ({"stages": [HALF, CANARY]}, "stages[1].percentage", "percentages only grow"),
        ({"candidate": "v7"}, "candidate", "name the variant to roll out"),
        ({"stages": [{**CANARY, "percentage": "10"}]}, "stages[0].percentage", "Expected `float`"),
        ({"stages": [{**CANARY, "min_duration": "soon"}]}, "stages[0].min_duration", "write a number"),
        (
            {"guardrails": [{"metric": "joy", "max_regression": {"absolute": 0.1}}]},
            "guardrails[0].metric",
            "create it first",
        ),
        (
            {"guardrails": [{"metric": "error_rate", "max_regression": {}}]},
            "guardrails[0].max_regression",
            "exactly one",
        ),
        ({"environment": "moon"}, "environment", "create it first"),
        ({"plan": "gone"}, "plan", "create it first"),
    ],
)
def test_an_impossible_rollout_is_refused_with_the_path_and_what_to_do(
    unchanged_site: Site, changes: dict[str, Any], path: str, says: str
) -> None:
    answer = unchanged_site.http.post("/api/v1/rollouts", json={**ROLLOUT, **changes})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["path"] == path
    assert says in answer.json()["detail"]
    assert unchanged_site.http.get("/api/v1/rollouts").json() == []


def test_everything_wrong_is_said_at_once(unchanged_site: Site) -> None:
    stages = [{**HALF, "cohort": "board"}, {**CANARY, "name": "half"}]
    answer = unchanged_site.http.post("/api/v1/rollouts", json={**ROLLOUT, "candidate": "v7", "stages": stages})
    paths = [each["path"] for each in answer.json()["problems"]]
    assert paths == ["candidate", "stages[0].cohort", "stages[1].name"]


def test_a_rollout_is_drafted_with_what_it_froze_and_started_once(each_site: Site) -> None:
    site = each_site
    site.populate()
    made = site.http.post("/api/v1/rollouts", json=ROLLOUT)
    assert (made.status_code, made.headers["etag"]) == (201, '"1"')
    rollout = made.json()["id"]
    assert made.json()["status"] == "draft"
    assert made.json()["metrics"]["error_rate"]["event"] == "the request failed"

    started = site.act(rollout, "start", revision=1)
    assert (started["seq"], started["change"]["to_percentage"]) == (1, 10.0)
    status = site.http.get(f"/api/v1/rollouts/{rollout}/status").json()
    assert (status["status"], status["stage"], status["percentage"]) == ("running", "canary", 10.0)
    assert status["next_change"]["to"] == "half"
    assert status["transitions"] == 1
    assert status["users_exposed"] == 0

    stale = site.http.post(f"/api/v1/rollouts/{rollout}/actions/pause", json={"revision": 1})
    assert stale.status_code == 409
    second = site.http.post(f"/api/v1/rollouts/{site.draft()}/actions/start")
    assert second.status_code == 409
    assert rollout in second.json()["detail"]


def test_a_rollout_goes_on_by_hand_and_back(each_site: Site) -> None:
    site = each_site
    site.populate()
    rollout = site.draft()
    site.act(rollout, "start")
    no_reason = site.http.post(f"/api/v1/rollouts/{rollout}/actions/advance")
    assert (no_reason.status_code, no_reason.json()["path"]) == (422, "reason")
    assert site.act(rollout, "advance", reason="seen enough")["change"]["to_percentage"] == 50.0
    site.act(rollout, "roll_back", reason="enough")
    status = site.http.get(f"/api/v1/rollouts/{rollout}/status").json()
    assert (status["status"], status["percentage"], status["next_change"]) == ("rolled_back", 0.0, None)
    again = site.http.post(f"/api/v1/rollouts/{rollout}/actions/resume")
    assert again.status_code == 409
    assert "create a new rollout" in again.json()["detail"]

    changes = site.http.get(f"/api/v1/rollouts/{rollout}/transitions").json()
    assert [each["change"]["step"] for each in changes] == ["start", "advance", "roll_back"]
    assert changes[1]["change"]["actor"].startswith("admin (")


def test_a_status_says_why_it_is_held_and_what_is_needed(site: Site) -> None:
    site.populate()
    rollout = site.draft()
    site.act(rollout, "start")
    deadline = time.monotonic() + 5
    while True:
        status = site.http.get(f"/api/v1/rollouts/{rollout}/status").json()
        if status["held"] or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    codes = {reason["code"] for reason in status["held"]}
    assert {"min_duration", "min_units"} <= codes
    assert status["decision"] == "hold"
    assert status["needed"] == [reason["message"] for reason in status["held"]]
    looks = site.http.get(f"/api/v1/rollouts/{rollout}/evaluations").json()
    assert looks[0]["outcome"]["decision"]["kind"] == "hold"


def test_rollouts_are_listed_by_flag_environment_and_status(site: Site) -> None:
    site.populate()
    first, second = site.draft(), site.draft()
    site.act(first, "start")

    def found(**query: str) -> set[str]:
        return {each["id"] for each in site.http.get("/api/v1/rollouts", params=query).json()}

    assert found() == {first, second}
    assert found(flag="answer", environment="production") == {first, second}
    assert found(status="running") == {first}
    assert found(flag="other") == set()
    assert site.http.get("/api/v1/rollouts", params={"status": "asleep"}).json()["path"] == "status"


def test_an_approval_needs_an_approver_who_is_not_the_author(site: Site) -> None:
    site.populate()
    rollout = site.draft(stages=[{**CANARY, "approval": "required"}])
    site.act(rollout, "start")
    approve = f"/api/v1/rollouts/{rollout}/actions/approve"
    own = site.http.post(approve)
    assert own.status_code == 403
    assert "author" in own.json()["detail"]
    with site.with_key("operator") as operator, site.with_key("approver") as approver:
        assert operator.post(approve).status_code == 403
        assert approver.post(approve).status_code == 200


def test_an_unknown_action_or_rollout_is_not_there(site: Site) -> None:
    site.populate()
    answer = site.http.post(f"/api/v1/rollouts/{site.draft()}/actions/promote")
    assert answer.status_code == 404
    assert "roll_back" in answer.json()["detail"]
    assert site.http.post("/api/v1/rollouts/ro_0/actions/start").status_code == 404
    assert site.http.get("/api/v1/rollouts/ro_0/evaluations").status_code == 404


def test_a_kill_beats_everything_and_restore_needs_an_operator(each_site: Site) -> None:
    site = each_site
    site.populate()
    rollout = site.draft()
    site.act(rollout, "start")
    state = site.post("/api/v1/flags/answer/kill", {"environment": "production", "reason": "smoke"})
    assert state["killed"] is True
    assert state["state"]["kill_reason"] == "smoke"
    ruleset = site.http.get("/sdk/v1/ruleset", params={"environment": "production"}).json()
    assert ruleset["flags"]["answer"]["killed"] is True
    status = site.http.get(f"/api/v1/rollouts/{rollout}/status").json()
    assert (status["killed"], status["status"], status["percentage"]) == (True, "paused", 0.0)
    site.post("/api/v1/flags/answer/restore", {"environment": "production"})
    asked = site.http.get("/api/v1/flags/answer/state", params={"environment": "production"}).json()
    assert asked["killed"] is False
    gone = site.http.post("/api/v1/flags/gone/kill", json={"environment": "production"})
    assert gone.status_code == 404


def test_a_preview_answers_as_the_application_would(site: Site) -> None:
    site.populate()
    rollout = site.draft(stages=[{**CANARY, "cohort": "staff", "percentage": 100}])
    site.act(rollout, "start")

    def ask(unit: str | None) -> dict[str, Any]:
        body = {"environment": "production", "flag": "answer", "context": {"targeting_key": unit}}
        answer: dict[str, Any] = site.post("/api/v1/preview", body)
        return answer

    assert (ask("ann")["variant"], ask("ann")["arm"]) == ("v8", "candidate")
    assert ask("zoe")["variant"] == "v7"
    assert ask(None)["variant"] == "v7"
    missing = {"environment": "production", "flag": "gone"}
    assert site.http.post("/api/v1/preview", json=missing).status_code == 404
