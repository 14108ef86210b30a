"""What a key bound to one environment can see and do to what environments share."""

from tests.shell.http.server import FLAG, ROLLOUT, Site

OVERRIDES = {"production": {"overrides": {"ann": "v8"}}, "staging": {"overrides": {"bob": "v8"}}}


def prepared(site: Site) -> None:
    site.populate()
    site.post("/api/v1/environments", {"key": "staging"})
    answer = site.http.put("/api/v1/flags/answer", json={**FLAG, "targeting": OVERRIDES})
    assert answer.status_code == 200, answer.text


def test_a_bound_key_reads_the_targeting_of_its_own_environment_only(each_site: Site) -> None:
    prepared(each_site)
    with each_site.with_key("viewer", environment="staging") as bound:
        assert bound.get("/api/v1/flags/answer").json()["targeting"] == {"staging": OVERRIDES["staging"]}
        assert [each["document"]["targeting"] for each in bound.get("/api/v1/flags").json()] == [
            {"staging": OVERRIDES["staging"]}
        ]
        assert "ann" not in bound.get("/api/v1/audit").text


def test_a_bound_editor_changes_its_own_targeting_and_keeps_what_it_cannot_see(each_site: Site) -> None:
    prepared(each_site)
    mine = {"staging": {"overrides": {"eve": "v8"}}}
    with each_site.with_key("editor", environment="staging") as bound:
        flag = bound.get("/api/v1/flags/answer")
        saved = bound.put(
            "/api/v1/flags/answer",
            json={**flag.json(), "targeting": mine},
            headers={"If-Match": flag.headers["etag"]},
        )
        assert saved.status_code == 200, saved.text
        assert saved.json()["targeting"] == mine
        for change in ({"default_variant": "v8"}, {"targeting": {"production": {"overrides": {"eve": "v8"}}}}):
            assert bound.put("/api/v1/flags/answer", json={**flag.json(), **change}).status_code == 403
    stored = each_site.http.get("/api/v1/flags/answer").json()["targeting"]
    assert stored == {"production": OVERRIDES["production"], **mine}


def test_a_variant_is_not_changed_to_a_value_that_only_equals_it(each_site: Site) -> None:
    prepared(each_site)
    whole = {"key": "model", "default_variant": "a", "variants": {"a": {"temperature": 1}}}
    each_site.post("/api/v1/flags", whole)
    for value in (True, 1.0):
        changed = {**whole, "variants": {"a": {"temperature": value}}}
        answer = each_site.http.put("/api/v1/flags/model", json=changed)
        assert (answer.status_code, answer.json()["path"]) == (422, "variants.a")
        with each_site.with_key("editor", environment="staging") as bound:
            assert bound.put("/api/v1/flags/model", json=changed).status_code == 403


def test_numbers_and_texts_no_column_can_hold_are_refused_not_broken(each_site: Site) -> None:
    prepared(each_site)
    http = each_site.http
    digits = "9" * 5000
    assert http.put("/api/v1/flags/answer", json=FLAG, headers={"If-Match": f'"{digits}"'}).status_code == 400
    for path in (f"/api/v1/plans/p?version={10**30}", f"/api/v1/audit?before={10**30}", "/api/v1/audit?before=0"):
        assert http.get(path).status_code == 400, path
    assert http.get("/sdk/v1/ruleset?environment=production", headers={"If-None-Match": digits}).status_code == 200
    nested = b'{"variants":{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}}"
    assert http.post("/api/v1/flags", content=nested).status_code == 400
    assert http.post("/sdk/v1/events?environment=production", content=nested).status_code == 400
    killed = http.post("/api/v1/flags/answer/kill", json={"environment": "production", "reason": "a\0b"})
    assert killed.status_code in {200, 400}
    assert http.get("/api/v1/rollouts?flag=a%00b").status_code in {200, 400}


def test_a_reason_is_no_book(site: Site) -> None:
    """Some stay with a rollout, and each of its looks is recorded with them."""
    site.populate()
    rollout = site.draft()
    said = {"reason": "a" * 2001}
    override = {**said, "variant": "v8", "expires": "1h"}
    answers = [
        site.http.post(f"/api/v1/rollouts/{rollout}/actions/start", json=said),
        site.http.put(f"/api/v1/rollouts/{rollout}", json={**said, "document": ROLLOUT}),
        site.http.post("/api/v1/flags/answer/kill", json={**said, "environment": "production"}),
        site.http.put("/api/v1/flags/answer/overrides/production/ann", json=override),
    ]
    assert [(answer.status_code, answer.json()["path"]) for answer in answers] == [(422, "reason")] * 4
    site.act(rollout, "start", reason="a" * 2000)
