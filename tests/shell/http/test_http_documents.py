"""Flags, cohorts, metrics, plans, environments: made, replaced, refused with the path."""

from typing import Any

import pytest

from tests.shell.http.server import COHORT, FLAG, METRIC, ROLLOUT, Site

PLAN = {key: ROLLOUT[key] for key in ("stages", "guardrails")} | {"key": "careful"}


def refusal(site: Site, path: str, body: Any) -> dict[str, Any]:
    answer = site.http.post(path, json=body)
    assert answer.status_code == 422, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["detail"] == problem["problems"][0]["message"]
    assert problem["path"] == problem["problems"][0]["path"]
    return problem


@pytest.mark.parametrize(("noun", "document"), [("flags", FLAG), ("cohorts", COHORT), ("metrics", METRIC)])
def test_a_document_is_made_replaced_and_guarded_by_its_revision(
    each_site: Site, noun: str, document: dict[str, Any]
) -> None:
    http, address = each_site.http, f"/api/v1/{noun}/{document['key']}"
    assert http.get(address).status_code == 404
    made = http.post(f"/api/v1/{noun}", json=document)
    assert (made.status_code, made.headers["etag"]) == (201, '"1"')
    assert http.post(f"/api/v1/{noun}", json=document).status_code == 409
    same = http.put(address, json=document)
    assert (same.status_code, same.headers["etag"]) == (200, '"1"')
    changed = {**document, "description": "said better"}
    done = http.put(address, json=changed, headers={"If-Match": '"1"'})
    assert (done.status_code, done.headers["etag"]) == (200, '"2"')
    late = http.put(address, json=document, headers={"If-Match": '"1"'})
    assert late.status_code == 409
    assert "revision 2" in late.json()["detail"]
    assert http.put(address, json=document, headers={"If-Match": "one"}).status_code == 400
    assert http.get(address).json() == changed
    assert http.get(f"/api/v1/{noun}").json() == [{"revision": 2, "document": changed}]
    assert http.put(f"/api/v1/{noun}/other", json=document).json()["path"] == "key"


def test_a_plan_keeps_its_versions(each_site: Site) -> None:
    site = each_site
    site.populate()
    assert site.http.post("/api/v1/plans", json=PLAN).headers["etag"] == '"1"'
    assert site.http.put("/api/v1/plans/careful", json=PLAN).headers["etag"] == '"1"'
    second = {**PLAN, "lease": "5m"}
    assert site.http.put("/api/v1/plans/careful", json=second).headers["etag"] == '"2"'
    assert site.http.put("/api/v1/plans/careful", json=PLAN, headers={"If-Match": '"1"'}).status_code == 409
    assert site.http.get("/api/v1/plans/careful").json()["lease"] == "5m"
    assert "lease" not in site.http.get("/api/v1/plans/careful", params={"version": 1}).json()
    assert [each["revision"] for each in site.http.get("/api/v1/plans").json()] == [2]
    rollout = {key: value for key, value in ROLLOUT.items() if key not in PLAN} | {"plan": "careful"}
    record = site.http.get(f"/api/v1/rollouts/{site.post('/api/v1/rollouts', rollout)['id']}").json()
    assert record["document"]["plan"] == "careful@2"
    assert record["document"]["lease"] == "5m"


def test_every_change_is_served_to_clients_at_once(each_site: Site) -> None:
    site = each_site
    site.populate()

    def ruleset() -> dict[str, Any]:
        answer: dict[str, Any] = site.http.get("/sdk/v1/ruleset", params={"environment": "production"}).json()
        return answer

    before = ruleset()
    site.http.put("/api/v1/flags/answer", json={**FLAG, "default_variant": "v8"})
    after = ruleset()
    assert after["revision"] == before["revision"] + 1
    assert after["flags"]["answer"]["default_variant"] == "v8"
    site.http.put("/api/v1/cohorts/staff", json={"key": "staff", "units": ["eve"]})
    assert ruleset()["cohorts"]["staff"]["units"] == ["eve"]


def test_every_change_has_one_audit_row_and_an_unchanged_document_has_none(each_site: Site) -> None:
    site = each_site
    site.populate()
    site.http.put("/api/v1/flags/answer", json=FLAG)
    site.http.put("/api/v1/flags/answer", json={**FLAG, "description": "x"})
    site.post("/api/v1/plans", PLAN)
    rollout = site.draft()
    site.act(rollout, "start")
    site.act(rollout, "pause", reason="lunch")
    site.post("/api/v1/flags/answer/kill", {"environment": "production", "reason": "smoke"})
    site.post("/api/v1/flags/answer/restore", {"environment": "production"})
    key = site.post("/api/v1/keys", {"name": "app", "scopes": ["viewer"]})["id"]
    site.http.delete(f"/api/v1/keys/{key}")
    site.http.delete(f"/api/v1/keys/{key}")
    entries = site.http.get("/api/v1/audit").json()["entries"]
    assert [each["action"] for each in reversed(entries)] == [
        "key.create", "environment.create", "cohort.create", "metric.create", "flag.create", "flag.change",
        "plan.create", "rollout.create", "rollout.start", "rollout.pause", "flag.kill", "flag.restore",
        "key.create", "key.revoke",
    ]  # fmt: skip
    assert all(each["actor"].startswith(("admin (", "service")) for each in entries)
    kill = next(each for each in entries if each["action"] == "flag.kill")
    assert (kill["target"], kill["environment"], kill["detail"]) == ("flag:answer", "production", {"reason": "smoke"})


def test_the_audit_trail_is_read_page_by_page(site: Site) -> None:
    site.populate()
    first = site.http.get("/api/v1/audit", params={"limit": 3}).json()
    second = site.http.get("/api/v1/audit", params={"limit": 3, "before": first["next"]}).json()
    numbers = [each["id"] for each in first["entries"] + second["entries"]]
    assert numbers == sorted(numbers, reverse=True)
    assert second["next"] is None
    only = site.http.get("/api/v1/audit", params={"target": "flag:answer"}).json()["entries"]
    assert [each["action"] for each in only] == ["flag.create"]
    assert site.http.get("/api/v1/audit", params={"limit": "many"}).json()["path"] == "limit"


def test_variants_never_change_their_value(site: Site) -> None:
    site.populate()
    changed = {**FLAG, "variants": {**FLAG["variants"], "v7": {"model": "tiny"}}}
    answer = site.http.put("/api/v1/flags/answer", json=changed)
    assert (answer.status_code, answer.json()["path"]) == (422, "variants.v7")
    assert "add a new variant" in answer.json()["detail"]
    added = {**FLAG, "variants": {**FLAG["variants"], "v9": {"model": "huge"}}}
    assert site.http.put("/api/v1/flags/answer", json=added).status_code == 200


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"default_variant": "v1"}, "default_variant"),
        ({"prerequisites": [{"flag": "gone", "variants": ["on"]}]}, "prerequisites[0].flag"),
        ({"prerequisites": [{"flag": "answer", "variants": ["v9"]}]}, "prerequisites[0].variants[0]"),
        ({"targeting": {"moon": {}}}, "targeting.moon"),
        ({"targeting": {"production": {"overrides": {"ann": "v1"}}}}, "targeting.production.overrides.ann"),
        (
            {"targeting": {"production": {"rules": [{"when": {"cohort": "gone"}, "variant": "v7"}]}}},
            "targeting.production.rules[0].when",
        ),
        (
            {"targeting": {"production": {"rules": [{"when": {"attribute": "a", "op": "is"}, "variant": "v7"}]}}},
            "targeting.production.rules[0].when.op",
        ),
        (
            {"targeting": {"production": {"rules": [{"split": {"v7": 40, "v8": 40}}]}}},
            "targeting.production.rules[0].split",
        ),
        ({"colour": "red"}, "colour"),
        ({"variants": 7}, "variants"),
    ],
)
def test_a_flag_that_would_break_is_refused_with_the_path(
    unchanged_site: Site, changes: dict[str, Any], path: str
) -> None:
    assert refusal(unchanged_site, "/api/v1/flags", {**FLAG, "key": "new", **changes})["path"] == path


def test_flags_that_would_wait_for_each_other_are_refused(site: Site) -> None:
    site.populate()
    second = {**FLAG, "key": "second", "prerequisites": [{"flag": "answer", "variants": ["v7"]}]}
    site.post("/api/v1/flags", second)
    back = {**FLAG, "prerequisites": [{"flag": "second", "variants": ["v7"]}]}
    answer = site.http.put("/api/v1/flags/answer", json=back)
    assert (answer.status_code, answer.json()["path"]) == (422, "prerequisites")


def test_cohorts_that_contain_themselves_are_refused(site: Site) -> None:
    site.populate()
    site.post("/api/v1/cohorts", {"key": "wide", "when": {"cohort": "staff"}})
    answer = site.http.put("/api/v1/cohorts/staff", json={"key": "staff", "when": {"cohort": "wide"}})
    assert (answer.status_code, answer.json()["path"]) == (422, "when")
    assert refusal(site, "/api/v1/cohorts", {"key": "x", "when": {"cohort": "gone"}})["path"] == "when"


@pytest.mark.parametrize(
    ("body", "status", "path"),
    [
        (b"{", 400, None),
        (b"\xff\xfe{}", 400, None),
        (b"", 400, ""),
        (b"[]", 422, ""),
        (b'{"key": 7}', 422, "key"),
        (b'{"key": "m", "kind": "vibes"}', 422, "kind"),
        (b'{"key": "m", "kind": "proportion", "bounds": ["1", 2]}', 422, "bounds[0]"),
    ],
)
def test_a_body_that_is_no_document_is_refused(
    unchanged_site: Site, body: bytes, status: int, path: str | None
) -> None:
    answer = unchanged_site.http.post("/api/v1/metrics", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json().get("path")) == (status, path), answer.text


@pytest.mark.parametrize(
    ("noun", "change", "path", "says"),
    [
        ("metrics", {"kind": "vibes"}, "kind", "; write one of proportion, "),
        ("plans", {"mode": "dry"}, "mode", "; write enforce"),
        ("plans", {"on_undecided": True}, "on_undecided", "; write one of hold, roll_back, advance"),
        (
            "plans",
            {"stages": [{"name": "a", "percentage": 1, "approval": True}]},
            "stages[0].approval",
            "got `bool`; write required",
        ),
        (
            "plans",
            {"guardrails": [{"metric": "error_rate", "max_regression": "5%"}]},
            "guardrails[0].max_regression",
            "got `str`; write {absolute: 0.05} or {relative: 0.1}",
        ),
        ("plans", {"lease": 15}, "lease", "Expected `str`, got `int`"),
        ("keys", {"name": "x", "scopes": ["boss"]}, "scopes[0]", "; write one of sdk:read, sdk:evidence, viewer"),
    ],
)
def test_a_value_that_is_not_allowed_is_answered_with_those_that_are(
    unchanged_site: Site, noun: str, change: dict[str, Any], path: str, says: str
) -> None:
    document = {"metrics": METRIC, "plans": PLAN, "keys": {}}[noun]
    problem = refusal(unchanged_site, f"/api/v1/{noun}", {**document, **change})
    assert (problem["path"], says in problem["detail"]) == (path, True), problem


def test_a_metric_stays_of_its_kind(site: Site) -> None:
    site.populate()
    answer = site.http.put("/api/v1/metrics/error_rate", json={**METRIC, "kind": "mean", "bounds": [0, 1]})
    assert (answer.status_code, answer.json()["path"]) == (422, "kind")
    assert "make another metric" in answer.json()["detail"]
    assert site.http.get("/api/v1/metrics/error_rate").json() == METRIC


def test_there_is_a_json_schema_of_every_document(unchanged_site: Site) -> None:
    for kind in ("environment", "flag", "cohort", "metric", "plan", "rollout"):
        schema = unchanged_site.http.get(f"/api/v1/schemas/{kind}").json()
        assert schema["$ref"].startswith("#/$defs/")
    stage = schema["$defs"]["Stage"]
    assert stage["additionalProperties"] is False
    assert set(stage["required"]) == {"name", "percentage"}
    assert unchanged_site.http.get("/api/v1/schemas/dream").status_code == 404


def test_the_interface_describes_itself(unchanged_site: Site) -> None:
    schema = unchanged_site.http.get("/schema/openapi.json").json()
    assert schema["openapi"].startswith("3.1")
    operation = schema["paths"]["/api/v1/rollouts/{rollout}/actions/{action}"]["post"]
    assert {"400", "401", "403", "404", "409", "422", "429"} <= set(operation["responses"])
    assert "application/problem+json" in operation["responses"]["409"]["content"]
    for path, methods in schema["paths"].items():
        for method, each in methods.items():
            assert each["summary"] or each["description"], (method, path)


def test_what_is_not_there_is_said_in_the_same_form(unchanged_site: Site) -> None:
    for method, path, status in [
        ("GET", "/nothing", 404),
        ("PATCH", "/api/v1/flags", 405),
        ("GET", "/api/v1/flags/gone", 404),
    ]:
        answer = unchanged_site.http.request(method, path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status
