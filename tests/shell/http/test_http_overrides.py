"""Overrides over HTTP and from the command line: who may, what is answered, and what the application is served."""

import json
import time
from typing import Any
from urllib.parse import quote

import pytest

from tests.shell.http.command import Run
from tests.shell.http.server import Site

WANTED = {"variant": "v8", "reason": "a tester", "expires": "24h"}


def at(unit: str = "ann", flag: str = "answer", environment: str = "production") -> str:
    return f"/api/v1/flags/{flag}/overrides/{environment}/{quote(unit, safe='')}"


def preview(site: Site, unit: str) -> Any:
    body = {"environment": "production", "flag": "answer", "context": {"targeting_key": unit}}
    return site.post("/api/v1/preview", body)


def test_an_override_is_given_listed_and_ended(each_site: Site) -> None:
    site = each_site
    site.populate()
    made = site.http.put(at(), json=WANTED)
    assert made.status_code == 200, made.text
    assert (preview(site, "ann")["variant"], preview(site, "ann")["arm"]) == ("v8", None)
    assert preview(site, "bob")["variant"] == "v7"
    (listed,) = site.http.get("/api/v1/flags/answer/overrides/production").json()
    assert listed == made.json()
    assert (listed["unit"], listed["variant"], listed["reason"]) == ("ann", "v8", "a tester")
    assert listed["actor"].startswith("admin (")
    assert site.http.delete(at(), params={"reason": "done"}).json() == listed
    assert preview(site, "ann")["variant"] == "v7"
    assert site.http.get("/api/v1/flags/answer/overrides/production").json() == []
    assert site.http.delete(at()).status_code == 404
    trail = site.http.get("/api/v1/audit", params={"target": "flag:answer"}).json()["entries"]
    assert [each["action"] for each in trail][:2] == ["override.end", "override.give"]
    assert "ann" not in json.dumps(trail).replace(listed["actor"], "")


@pytest.mark.parametrize(
    "unit", ["team/42", "a b", "ä@x.de", "100%", "a?b#c", "a//b", "/a/", "%2F", "+", "a/../b", "a///b"]
)
def test_a_unit_may_be_any_printable_text(site: Site, unit: str) -> None:
    site.populate()
    made = site.http.put(at(unit), json=WANTED)
    assert made.status_code == 200, made.text
    assert made.json()["unit"] == unit
    assert preview(site, unit)["variant"] == "v8"
    assert site.http.delete(at(unit)).json()["unit"] == unit


def test_an_override_ends_by_itself(site: Site) -> None:
    site.populate()
    site.http.put(at(), json={**WANTED, "expires": "1s"})
    assert preview(site, "ann")["variant"] == "v8"
    deadline = time.monotonic() + 4
    while preview(site, "ann")["variant"] != "v7" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert preview(site, "ann")["variant"] == "v7"
    assert site.http.get("/api/v1/audit").json()["entries"][0]["action"] == "override.expire"


def test_an_address_that_names_no_single_place_is_refused(site: Site) -> None:
    site.populate()
    for address in ("/api/v1/flags/answer//overrides/production/ann", "/api/v1/flags/answer/overrides//production/ann"):
        answer = site.http.put(address, json=WANTED)
        assert answer.status_code in (400, 404), answer.text
    assert site.http.get("/api/v1/flags/answer/overrides/production").json() == []


def test_who_may_give_and_end(site: Site) -> None:
    site.populate()
    site.post("/api/v1/environments", {"key": "staging"})
    with site.with_key("editor") as editor, site.with_key("operator") as operator, site.with_key("viewer") as viewer:
        refused = editor.put(at(), json=WANTED)
        assert (refused.status_code, "operator" in refused.json()["detail"]) == (403, True)
        assert editor.put(at(), json={**WANTED, "variant": "v7"}).status_code == 200
        assert operator.put(at(), json=WANTED).status_code == 200
        assert viewer.put(at(), json=WANTED).status_code == 403
        assert viewer.delete(at()).status_code == 403
        assert len(viewer.get("/api/v1/flags/answer/overrides/production").json()) == 1
        with site.with_key("operator", environment="staging") as elsewhere:
            for answer in (
                elsewhere.put(at(), json=WANTED),
                elsewhere.delete(at()),
                elsewhere.get("/api/v1/flags/answer/overrides/production"),
            ):
                assert answer.status_code == 403
        assert editor.delete(at()).status_code == 200


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"variant": "v9"}, "variant"), ({"reason": " "}, "reason"), ({"expires": "1y"}, "expires"),
        ({"expires": "91d"}, "expires"), ({"until": "1h"}, "until"), ({"expires": 5}, "expires"),
    ],
)  # fmt: skip
def test_a_bad_request_names_the_field(unchanged_site: Site, change: dict[str, Any], path: str) -> None:
    answer = unchanged_site.http.put(at(), json={**WANTED, **change})
    assert (answer.status_code, answer.json()["path"]) == (422, path)


@pytest.mark.parametrize("missing", list(WANTED))
def test_variant_reason_and_end_are_required(unchanged_site: Site, missing: str) -> None:
    answer = unchanged_site.http.put(at(), json={key: value for key, value in WANTED.items() if key != missing})
    assert (answer.status_code, answer.json()["path"]) == (422, missing)


def test_there_is_no_override_of_what_is_not_there(unchanged_site: Site) -> None:
    for address in (at(flag="nope"), at(environment="nope")):
        assert unchanged_site.http.put(address, json=WANTED).status_code == 404
        assert unchanged_site.http.get(address.rpartition("/")[0]).status_code == 404
    assert unchanged_site.http.delete(at("nobody")).status_code == 404


def test_the_command_gives_lists_and_ends(site: Site, run: Run) -> None:
    site.populate()
    rollout = site.draft()
    site.act(rollout, "start")
    given = run("override", "answer", "team/42", "v8", "-e", "production", "--for", "24h", "--reason", "a tester")
    assert given.code == 0, given.err
    assert given.out.startswith("team/42 gets v8 of answer in production until ")
    assert given.out.endswith(": a tester")
    assert run("overrides", "answer", "-e", "production").out == given.out
    (listed,) = json.loads(run("overrides", "answer", "-e", "production", "--json").out)
    assert listed["unit"] == "team/42"
    assert "pinned by override: 1 units" in run("status", "answer").out
    ended = run("override", "answer", "team/42", "-e", "production", "--end", "--reason", "done")
    assert ended.out == "team/42 has no override of answer in production any more"
    assert run("overrides", "answer", "-e", "production").out == "nobody has an override of answer in production"
    assert "pinned" not in run("status", "answer").out
    assert run("override", "answer", "ann", "-e", "production", "--end").code == 1
    for wrong in (["v8"], ["--for", "1h"], ["v8", "--for", "1h", "--end"]):
        refused = run("override", "answer", "ann", *wrong, "-e", "production", "--reason", "a tester")
        assert (refused.code, "--for" in refused.err) == (1, True)
