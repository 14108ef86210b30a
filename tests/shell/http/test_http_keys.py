"""Who may ask what."""

import time

import pytest
from litestar.routes import HTTPRoute

from tests.shell.http.server import ENVIRONMENT, FLAG, ROLLOUT, Site, client

OPEN = {"/health/live", "/health/ready", "/schema", "/schema/openapi.json"}
"""All that answers without a key."""
NOTHING = "/schema/path"
"""Whatever else is asked for beside the description of the interface is not there, with or without a key."""


def test_every_route_refuses_to_answer_without_a_key(site: Site) -> None:
    routes = [route for route in site.app.routes if isinstance(route, HTTPRoute)]
    tried = 0
    with client(site.url, None) as nobody:
        for route in routes:
            path = route.path_format.replace("{", "").replace("}", "")
            for method in sorted(route.methods - {"HEAD"}):
                answer = nobody.request(method, path)
                if path in OPEN and method == "GET":
                    assert answer.status_code == 200
                elif path == NOTHING and method == "GET":
                    assert answer.status_code == 404
                elif path not in OPEN | {NOTHING}:
                    assert answer.status_code == 401, (method, path, answer.text)
                    assert answer.headers["www-authenticate"] == "Bearer"
                    assert answer.headers["content-type"] == "application/problem+json"
                    tried += 1
    assert tried > 50
    assert {route.path_format for route in routes} >= OPEN


@pytest.mark.parametrize("key", ["", "hunter2", "rl_first_guess", "rl_" + "x" * 5000])
def test_a_key_that_nobody_made_is_refused(unchanged_site: Site, key: str) -> None:
    with client(unchanged_site.url, key or None) as stranger:
        assert stranger.get("/api/v1/flags").status_code == 401


def test_a_key_does_what_its_scopes_say_and_no_more(site: Site) -> None:
    site.populate()
    rollout = site.draft()
    start = f"/api/v1/rollouts/{rollout}/actions/start"
    cases = [
        ("sdk:read", "GET", "/sdk/v1/ruleset", 200),
        ("sdk:read", "POST", "/sdk/v1/events", 403),
        ("sdk:read", "GET", "/api/v1/flags", 403),
        ("sdk:evidence", "GET", "/sdk/v1/ruleset", 403),
        ("sdk:evidence", "GET", "/sdk/v1/stream", 403),
        ("viewer", "GET", "/api/v1/flags", 200),
        ("viewer", "POST", "/api/v1/flags", 403),
        ("viewer", "POST", "/api/v1/flags/answer/kill", 403),
        ("viewer", "GET", "/api/v1/keys", 403),
        ("editor", "GET", "/api/v1/rollouts", 200),
        ("editor", "POST", start, 403),
        ("approver", "POST", start, 403),
        ("approver", "POST", "/api/v1/flags/answer/restore", 403),
        ("operator", "POST", "/api/v1/rollouts", 403),
        ("operator", "POST", "/api/v1/keys", 403),
        ("operator", "GET", "/metrics", 200),
    ]
    for scope, method, path, status in cases:
        with site.with_key(scope, environment="production") as asking:
            answer = asking.request(method, path, json={} if method == "POST" else None)
            assert answer.status_code == status, (scope, method, path, answer.text)


@pytest.mark.parametrize("scope", ["editor", "operator", "approver"])
def test_whoever_may_change_anything_may_reduce_exposure(site: Site, scope: str) -> None:
    site.populate()
    rollout = site.draft()
    site.act(rollout, "start")
    with site.with_key(scope) as asking:
        assert asking.post(f"/api/v1/rollouts/{rollout}/actions/pause").status_code == 200
        assert asking.post(f"/api/v1/rollouts/{rollout}/actions/roll_back").status_code == 200
        killed = asking.post("/api/v1/flags/answer/kill", json={"environment": "production"})
        assert killed.status_code == 200
        assert killed.json()["killed"] is True


def test_what_belongs_to_another_environment_is_out_of_reach(site: Site) -> None:
    site.populate()
    site.post("/api/v1/environments", {"key": "staging"})
    rollout = site.draft()
    site.act(rollout, "start")
    with site.with_key("editor", "operator", "sdk:read", "sdk:evidence", environment="staging") as staging:
        assert staging.get(f"/api/v1/rollouts/{rollout}").status_code == 404
        assert staging.get(f"/api/v1/rollouts/{rollout}/status").status_code == 404
        assert staging.post(f"/api/v1/rollouts/{rollout}/actions/roll_back").status_code == 404
        assert staging.get("/api/v1/rollouts").json() == []
        assert staging.get("/api/v1/rollouts", params={"environment": "production"}).status_code == 403
        assert staging.post("/api/v1/rollouts", json=ROLLOUT).status_code == 403
        assert staging.post("/api/v1/flags/answer/kill", json={"environment": "production"}).status_code == 403
        assert staging.get("/api/v1/flags/answer/state", params={"environment": "production"}).status_code == 403
        preview = {"environment": "production", "flag": "answer"}
        assert staging.post("/api/v1/preview", json=preview).status_code == 403
        assert staging.get("/sdk/v1/ruleset", params={"environment": "production"}).status_code == 403
        assert staging.get("/sdk/v1/stream", params={"environment": "production"}).status_code == 403
        assert staging.get("/sdk/v1/ruleset").json()["environment"] == "staging"
        assert staging.get("/api/v1/environments/production").status_code == 404
        assert [each["key"] for each in staging.get("/api/v1/environments").json()] == ["staging"]
        seen = staging.get("/api/v1/audit").json()["entries"]
        assert {each["environment"] for each in seen} <= {None, "staging"}
    assert site.http.get(f"/api/v1/rollouts/{rollout}/status").json()["status"] == "running"


def test_a_bound_editor_changes_only_its_own_part_of_what_is_shared(site: Site) -> None:
    site.populate()
    site.post("/api/v1/environments", {"key": "staging"})
    ours = {**FLAG, "targeting": {"staging": {"overrides": {"ann": "v8"}}}}
    theirs = {**ours, "targeting": {**ours["targeting"], "production": {"overrides": {"ann": "v8"}}}}
    with site.with_key("editor", environment="staging") as editor:
        assert editor.put("/api/v1/flags/answer", json=ours).status_code == 200
        refused = editor.put("/api/v1/flags/answer", json=theirs)
        assert refused.status_code == 403
        assert "shared by all environments" in refused.json()["detail"]
        assert editor.post("/api/v1/flags", json={**FLAG, "key": "other"}).status_code == 403
        assert editor.put("/api/v1/cohorts/staff", json={"key": "staff", "units": ["eve"]}).status_code == 403
        assert editor.post("/api/v1/environments", json={"key": "mine"}).status_code == 403


def test_an_unbound_key_says_which_environment_it_means(site: Site) -> None:
    site.populate()
    with site.with_key("sdk:read") as reader:
        refused = reader.get("/sdk/v1/ruleset")
        assert (refused.status_code, refused.json()["path"]) == (400, "environment")
        assert reader.get("/sdk/v1/ruleset", params={"environment": "production"}).status_code == 200
        assert reader.get("/sdk/v1/ruleset", params={"environment": "moon"}).status_code == 404


def test_an_admin_of_one_environment_makes_keys_for_it_only(site: Site) -> None:
    site.post("/api/v1/environments", ENVIRONMENT)
    site.post("/api/v1/environments", {"key": "staging"})
    body = {"name": "ci", "scopes": ["viewer"]}
    with site.with_key("admin", environment="staging") as admin:
        assert admin.post("/api/v1/keys", json=body).status_code == 403
        assert admin.post("/api/v1/keys", json={**body, "environment": "production"}).status_code == 403
        assert admin.post("/api/v1/keys", json={**body, "environment": "staging"}).status_code == 201
        listed = admin.get("/api/v1/keys").json()
        assert {each["environment"] for each in listed} == {"staging"}
        foreign = next(each["id"] for each in site.http.get("/api/v1/keys").json() if each["environment"] is None)
        assert admin.delete(f"/api/v1/keys/{foreign}").status_code == 404


def test_a_secret_is_shown_once_and_a_revoked_key_is_useless_within_two_seconds(each_site: Site) -> None:
    site = each_site
    site.populate()
    made = site.post("/api/v1/keys", {"name": "app", "scopes": ["viewer"]})
    listed = site.http.get("/api/v1/keys").text
    assert made["id"] in listed
    assert made["secret"] not in listed
    assert made["secret"].rpartition("_")[2] not in site.http.get("/api/v1/audit").text
    with client(site.url, made["secret"]) as app:
        assert app.get("/api/v1/flags").status_code == 200
        site.http.delete(f"/api/v1/keys/{made['id']}")
        deadline = time.monotonic() + 6  # two seconds of cache, and a busy machine
        while app.get("/api/v1/flags").status_code == 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert app.get("/api/v1/flags").status_code == 401


def test_a_key_with_problems_is_refused_with_the_path(site: Site) -> None:
    def paths(body: dict[str, object]) -> list[str]:
        answer = site.http.post("/api/v1/keys", json=body)
        assert answer.status_code == 422, answer.text
        return [each["path"] for each in answer.json()["problems"]]

    assert paths({"name": "x", "scopes": ["sudo"]}) == ["scopes[0]"]
    assert paths({"name": " ", "scopes": []}) == ["name", "scopes"]
    assert paths({"name": "x", "scopes": ["viewer"], "environment": "moon"}) == ["environment"]
