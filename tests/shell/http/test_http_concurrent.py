"""Rollouts beside each other, over HTTP: shown while they may meet, kept apart by a group or by a holdout."""

import json
from pathlib import Path
from typing import Any

import pytest

from rollout_client.evaluation.bucketing import bucket
from tests.shell.http.command import Run
from tests.shell.http.server import FLAG, ROLLOUT, Site

THIRTY = {"exclusion": {"group": "pages", "share": 30}}
HELD_OUT = next(unit for unit in map(str, range(1_000)) if bucket("holdout/holdout", unit) < 5_000)


def two_flags(site: Site) -> None:
    site.populate()
    site.post("/api/v1/flags", {**FLAG, "key": "search"})


def started(site: Site, **changes: Any) -> str:
    rollout = site.draft(**changes)
    site.act(rollout, "start")
    return rollout


def status(site: Site, rollout: str) -> dict[str, Any]:
    answer = site.http.get(f"/api/v1/rollouts/{rollout}/status")
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


def hold_out(site: Site, holdout: dict[str, Any] | None) -> Any:
    document = {"key": "production", **({} if holdout is None else {"holdout": holdout})}
    return site.http.put("/api/v1/environments/production", json=document)


def variant(site: Site, unit: str) -> Any:
    body = {"environment": "production", "flag": "answer", "context": {"targeting_key": unit}}
    return site.post("/api/v1/preview", body)["variant"]


def test_a_status_shows_whom_a_rollout_may_meet_until_the_other_ends(each_site: Site) -> None:
    site = each_site
    two_flags(site)
    first = started(site)
    assert status(site, first)["concurrent"] == []
    second = started(site, flag="search")
    for mine, other, flag in ((first, second, "search"), (second, first, "answer")):
        [met] = status(site, mine)["concurrent"]
        assert (met["rollout"], met["flag"], met["metrics"]) == (other, flag, ["error_rate"])
        assert met["population"] == "shared"
        assert "both arms meet it equally" in met["message"]
        assert other not in json.dumps(status(site, mine)["held"]), "a warning holds nothing"
    [start] = site.http.get(f"/api/v1/rollouts/{second}/transitions").json()
    assert f"runs beside {first} on answer (both watch error_rate)" in start["change"]["reason"]
    site.act(first, "roll_back", reason="enough")
    assert status(site, second)["concurrent"] == []
    assert status(site, first)["concurrent"] == [], "what has ended meets nobody"


def test_a_group_keeps_rollouts_apart_and_says_what_is_left(each_site: Site) -> None:
    site = each_site
    two_flags(site)
    first = started(site, **THIRTY)
    second = started(site, flag="search", exclusion={"group": "pages", "share": 70})
    for rollout, reach in ((first, 30), (second, 70)):
        found = status(site, rollout)
        assert (found["concurrent"], found["group"], found["reach"], found["percentage"]) == ([], "pages", reach, 10)
    record = site.http.get(f"/api/v1/rollouts/{second}").json()
    assert record["state"]["slice"] == {"start": 30_000, "end": 100_000}
    site.post("/api/v1/flags", {**FLAG, "key": "mail"})
    refused = site.http.post(f"/api/v1/rollouts/{site.draft(flag='mail', **THIRTY)}/actions/start")
    assert refused.status_code == 409
    assert "group 'pages' has 0 % left" in refused.json()["detail"]
    assert f"{second} holds 70 %" in refused.json()["detail"]
    ruleset = site.http.get("/sdk/v1/ruleset", params={"environment": "production"})
    assert ruleset.json()["schema"] == 2


def test_a_holdout_is_in_no_rollout_and_comes_back_into_none(each_site: Site) -> None:
    site = each_site
    site.populate()
    whole = [{"name": "all", "percentage": 100, "min_duration": "1h"}]
    rollout = started(site, stages=whole, guardrails=[])
    assert variant(site, HELD_OUT) == "v8"
    assert hold_out(site, {"percentage": 5}).status_code == 200
    assert variant(site, HELD_OUT) == "v7"
    assert status(site, rollout)["reach"] == 95
    assert hold_out(site, {"percentage": 6}).status_code == 200, "it may grow"
    for smaller, path in (
        ({"percentage": 5}, "holdout.percentage"),
        ({"percentage": 6, "salt": "anew"}, "holdout.salt"),
        (None, "holdout"),
    ):
        refused = hold_out(site, smaller)
        assert (refused.status_code, refused.json()["path"]) == (409, path)
        assert f"into {rollout} that no gate has admitted" in refused.json()["detail"]
    assert variant(site, HELD_OUT) == "v7"
    assert site.http.get("/api/v1/environments/production").json()["holdout"] == {"percentage": 6.0}
    site.act(rollout, "roll_back", reason="enough")
    assert hold_out(site, None).status_code == 200
    changes = site.http.get("/api/v1/audit", params={"target": "environment:production"}).json()["entries"]
    assert [each["action"] for each in changes] == [*["environment.change"] * 3, "environment.create"]


@pytest.mark.parametrize(
    ("holdout", "path"),
    [
        ({"percentage": 51}, "holdout.percentage"),
        ({"percentage": "5"}, "holdout.percentage"),
        ({"percentage": 5, "share": 1}, "holdout.share"),
        ({"salt": "s"}, "holdout.percentage"),
    ],
)
def test_an_impossible_holdout_is_refused_with_the_path(
    unchanged_site: Site, holdout: dict[str, Any], path: str
) -> None:
    refused = hold_out(unchanged_site, holdout)
    assert (refused.status_code, refused.json()["path"]) == (422, path)


@pytest.mark.parametrize(
    ("exclusion", "path"),
    [
        ({"group": "pages"}, "exclusion.share"),
        ({"group": "pages", "share": 0}, "exclusion.share"),
        ({"group": "two words", "share": 5}, "exclusion.group"),
    ],
)
def test_an_impossible_place_is_refused_with_the_path(
    unchanged_site: Site, exclusion: dict[str, Any], path: str
) -> None:
    body = {"flag": "answer", "environment": "production", "baseline": "v7", "candidate": "v8", "exclusion": exclusion,
            "stages": [{"name": "canary", "percentage": 10}]}  # fmt: skip
    refused = unchanged_site.http.post("/api/v1/rollouts", json=body)
    assert (refused.status_code, refused.json()["path"]) == (422, path)


def test_the_command_line_says_it_at_the_start_and_in_the_status(site: Site, run: Run) -> None:
    two_flags(site)
    first = started(site, **THIRTY)
    second = site.draft(flag="search")
    begun = run("start", "search").out.splitlines()
    assert begun[0] == f"{second}  start: draft -> running, 0 % -> 10 %"
    assert begun[1].startswith(f"  meets  {first} on flag answer may have the same units; both watch error_rate")
    assert hold_out(site, {"percentage": 5}).is_success
    shown = run("status", "answer").out.splitlines()
    assert shown[1] == ("  now    running, stage canary, 10 % on v8; 28.5 % of the units take part (group pages)")
    assert f"  meets  {second} on flag search" in "\n".join(shown)


def test_applying_says_it_too(site: Site, run: Run, tmp_path: Path) -> None:
    two_flags(site)
    first = started(site)
    (tmp_path / "search.json").write_text(json.dumps({"kind": "Rollout", **ROLLOUT, "flag": "search"}))
    applied = run("apply", "-f", str(tmp_path / "search.json"), "--start").out.splitlines()
    assert applied[0].endswith("started")
    assert applied[1].startswith(f"  meets  {first} on flag answer")


def test_the_command_line_says_that_the_end_is_for_all(site: Site, run: Run) -> None:
    site.populate()
    last = [{"name": "half", "percentage": 50, "min_duration": "1h"}]
    started(site, stages=last, **THIRTY)
    assert "  next   completed at 100 % of all units, not before" in run("status", "answer").out
    assert hold_out(site, {"percentage": 50}).is_success
    assert "; 15 % of the units take part (group pages)" in run("status", "answer").out
