"""Simulate and backtest over HTTP: what they answer, what they refuse with its path, and who need not wait for whom."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from rollout.domain.expectation import Expectation
from rollout.domain.forecast import Forecast, forecast
from rollout.domain.metric import Metric
from rollout.domain.plan import PlanBody
from tests.shell.http.command import Run
from tests.shell.http.server import METRIC, ROLLOUT, Site, client, serving

SIMULATE = "/api/v1/rollouts/simulate"
PLAN = {"stages": ROLLOUT["stages"], "guardrails": ROLLOUT["guardrails"]}
EXPECTED = {"requests_per_minute": 2000, "metrics": {"error_rate": {"rate": 0.02}}, "runs": 20}
ENDLESS = {**EXPECTED, "runs": 5000, "regressions": [{"metric": "error_rate", "times": 1.01}] * 200}


def working(site: Site) -> list[int]:
    return [process.pid for process in list(site.app.state.aside._running)]


def until_it_works(site: Site) -> int:
    """The id of the process beside the service."""
    waiting = time.monotonic() + 30
    while not working(site):
        assert time.monotonic() < waiting
        time.sleep(0.01)
    return working(site)[0]


def fed(site: Site, **changes: Any) -> str:
    """A started rollout that harm was reported of, rolled back by the engine."""
    identifier = site.draft(**changes)
    site.act(identifier, "start")
    attempt = site.http.get(f"/api/v1/rollouts/{identifier}").json()["state"]["attempts"][-1]["id"]
    minute = str(int(time.time()) // 60)

    def arm(failed: int) -> dict[str, Any]:
        cells = {str(cell): 1 for cell in range(200)}
        outcomes = {"cells": {cell: [1, int(int(cell) < failed)] for cell in cells}}
        slot = {"exposures": cells, "first_exposures": cells, "started": cells, "metrics": {"error_rate": outcomes}}
        return {"sketch": [[register, 1] for register in range(200)], "slots": {minute: slot}}

    batch = {
        "batch_id": f"b-{identifier}", "environment": "production", "process": "p", "client": "t",
        "attempts": {attempt: {"candidate": arm(120), "baseline": arm(2)}},
    }  # fmt: skip
    site.post("/sdk/v1/events?environment=production", batch)
    waiting = time.monotonic() + 30
    while site.http.get(f"/api/v1/rollouts/{identifier}").json()["status"] != "rolled_back":
        assert time.monotonic() < waiting
        time.sleep(0.05)
    return identifier


def test_a_plan_is_simulated_with_the_services_own_metrics(each_site: Site) -> None:
    each_site.populate()
    with each_site.with_key("viewer") as viewer:
        answer = viewer.post(SIMULATE, json={"plan": PLAN, "expectation": EXPECTED}, timeout=90)
    assert answer.status_code == 200, answer.text
    plan, expected = msgspec.convert(PLAN, PlanBody), msgspec.convert(EXPECTED, Expectation)
    known = {"error_rate": msgspec.convert(METRIC, Metric)}
    assert msgspec.json.decode(answer.content, type=Forecast) == forecast(plan, known, expected)


def test_a_rollout_is_simulated_with_the_plan_it_names(site: Site) -> None:
    site.populate()
    site.post("/api/v1/plans", {"key": "careful", **PLAN})
    named = {each: ROLLOUT[each] for each in ("flag", "environment", "baseline", "candidate")}
    found = site.http.post(
        SIMULATE, json={"rollout": {**named, "plan": "careful"}, "expectation": EXPECTED}, timeout=90
    )
    assert found.status_code == 200, found.text
    assert found.json()["fates"][0]["stage"] == "canary"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"plan": {**PLAN, "stages": [PLAN["stages"][1], PLAN["stages"][0]]}}, "plan.stages[1].percentage"),
        ({"plan": {**PLAN, "guardrails": []}}, "plan.guardrails"),
        ({"plan": {**PLAN, "stages": [{"name": "x", "percentage": "9"}]}}, "plan.stages[0].percentage"),
        ({"plan": {**PLAN, "guardrails": [{"metric": "gone", "max_regression": {"relative": 1}}]}},
         "plan.guardrails[0].metric"),
        ({"rollout": {**ROLLOUT, "flag": "gone"}}, "rollout.flag"),
        ({"rollout": {**ROLLOUT, "plan": "gone"}}, "rollout.plan"),
        ({}, "plan"),
        ({"plan": PLAN, "rollout": ROLLOUT}, "plan"),
        ({"plan": PLAN, "expectation": {**EXPECTED, "runs": 0}}, "expectation.runs"),
        ({"plan": PLAN, "expectation": {**EXPECTED, "metrics": {}}}, "expectation.metrics"),
        ({"plan": PLAN, "expectation": {"metrics": {}}}, "expectation.requests_per_minute"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_path(unchanged_site: Site, body: dict[str, Any], path: str) -> None:
    answer = unchanged_site.http.post(SIMULATE, json={"expectation": EXPECTED, **body})
    assert (answer.status_code, answer.json()["path"]) == (422, path), answer.text
    assert working(unchanged_site) == []


def test_one_is_worked_out_at_a_time_and_none_for_somebody_who_has_gone(site: Site) -> None:
    site.populate()
    body = {"plan": PLAN, "expectation": ENDLESS}
    with client(site.url, site.key("viewer")) as impatient:

        def ask() -> None:
            with pytest.raises(httpx.ReadTimeout):
                impatient.post(SIMULATE, json=body)

        asked = threading.Thread(target=ask)
        asked.start()
        pid = until_it_works(site)
        busy = site.http.post(SIMULATE, json={"plan": PLAN, "expectation": EXPECTED})
        assert (busy.status_code, busy.headers["retry-after"]) == (429, "5")
        assert "are running" in busy.json()["detail"]
        assert site.http.get("/health/live").status_code == 200
        asked.join()
    waiting = time.monotonic() + 10
    while working(site):
        assert time.monotonic() < waiting, "the work went on although nobody waits for it"
        time.sleep(0.01)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    again = site.http.post(SIMULATE, json={"plan": PLAN, "expectation": EXPECTED}, timeout=90)
    assert again.status_code == 200, "and there is room again"


def test_a_service_that_stops_waits_for_no_work(sqlite_url: str) -> None:
    answers: list[int] = []
    with serving(sqlite_url) as site:
        site.populate()
        http = client(site.url, site.key("viewer"))
        asked = threading.Thread(
            target=lambda: answers.append(
                http.post(SIMULATE, json={"plan": PLAN, "expectation": ENDLESS}, timeout=90).status_code
            )
        )
        asked.start()
        pid, began = until_it_works(site), time.monotonic()
    asked.join()
    http.close()
    assert answers == [503]
    assert time.monotonic() - began < 4, "sooner than requests in flight are given up"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_backtest_stands_beside_what_was_recorded(each_site: Site) -> None:
    each_site.populate()
    identifier = fed(each_site)
    path = f"/api/v1/rollouts/{identifier}/backtest"
    with each_site.with_key("viewer") as viewer:
        found = viewer.post(path, json={"rollout": ROLLOUT}, timeout=90).json()
        assert found["backtest"] == found["recorded"]
        assert (found["backtest"]["ended"], found["backtest"]["requests"]) == ("rolled_back", 200)
        lenient = {**PLAN, "guardrails": [{"metric": "error_rate", "max_regression": {"absolute": 0.9}}]}
        found = viewer.post(path, json={"plan": lenient}, timeout=90).json()
        assert (found["backtest"]["ended"], found["backtest"]["decisions"]) == ("running", [])
        other = {**PLAN, "guardrails": [*PLAN["guardrails"], {"metric": "cost", "max_regression": {"relative": 1}}]}
        refused = viewer.post(path, json={"plan": other})
        assert (refused.status_code, refused.json()["path"]) == (422, "plan.guardrails[1].metric")
        assert refused.json()["detail"].startswith("the log has no evidence on 'cost'")
        assert viewer.post("/api/v1/rollouts/gone/backtest", json={"plan": PLAN}).status_code == 404
    each_site.post("/api/v1/environments", {"key": "staging"})
    with each_site.with_key("viewer", environment="staging") as bound:
        assert bound.post(path, json={"plan": PLAN}).status_code == 404
        assert bound.post(SIMULATE, json={"rollout": ROLLOUT, "expectation": EXPECTED}).status_code == 403
    with each_site.with_key("sdk:evidence") as application:
        assert application.post(path, json={"plan": PLAN}).status_code == 403
    draft = each_site.draft()
    assert each_site.http.post(f"/api/v1/rollouts/{draft}/backtest", json={"plan": PLAN}).status_code == 409


def test_the_command_says_both_courses(site: Site, run: Run, tmp_path: Path) -> None:
    site.populate()
    identifier = fed(site)
    file = tmp_path / "plan.yaml"
    file.write_text(
        "kind: Plan\nkey: lenient\nstages: [{name: all, percentage: 50, min_duration: 1h}]\n"
        "guardrails: [{metric: error_rate, max_regression: {absolute: 0.9}}]\n"
    )
    said = run("backtest", identifier, "-f", str(file))
    assert said.code == 0, said.err
    told = said.out.splitlines()
    assert told[1] == "as recorded: rolled back, 200 requests to the candidate"
    assert "roll_back in canary -> 0 %, after 200 requests to the candidate: error_rate breach: " in told[2]
    assert told[3] == "under this plan: still in stage all when the log ended, 200 requests to the candidate"
    assert told[4].startswith("not known: the sample ratio")
    assert "50 % instead of 10 %" in told[5]
    file.write_text("kind: Environment\nkey: production\n")
    refused = run("backtest", identifier, "-f", str(file))
    assert (refused.code, refused.err.strip()) == (1, "the files have no document of kind Rollout or Plan")
