"""The command line against a running service."""

import json
from pathlib import Path

import pytest

from rollout.cli.files import BadFile, read
from rollout.domain.flag import Flag
from tests.shell.http.command import Run
from tests.shell.http.server import Site

DOCUMENTS = """
kind: Rollout
flag: assistant
environment: production
baseline: off
candidate: on
plan: careful
---
kind: Plan
key: careful
stages:
  - {name: pilot, cohort: everybody-here, percentage: 100, min_duration: 24h, approval: required}
  - {name: canary, percentage: 1, min_duration: 2h, min_units: 500}
guardrails:
  - {metric: error_rate, max_regression: {absolute: 0.005}}
---
kind: Flag
key: assistant
variants: {on: true, off: false}
default_variant: off
prerequisites: [{flag: platform, variants: [on]}]
---
kind: Flag
key: platform
variants: {on: true, off: false}
default_variant: on
---
kind: Cohort
key: everybody-here
when: {cohort: staff}
---
kind: Cohort
key: staff
units: [ann, bob]
---
kind: proportion
key: error_rate
event: the request failed
---
kind: Environment
key: production
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    path = tmp_path / "all.yaml"
    path.write_text(DOCUMENTS)
    return path


def test_apply_brings_a_service_to_what_a_file_says_and_changes_nothing_twice(
    site: Site, run: Run, files: Path
) -> None:
    first = run("apply", "-f", str(files))
    assert first.code == 0, first.err
    said = first.out.splitlines()
    assert said[:7] == [
        "environment production: created",
        "cohort staff: created",
        "cohort everybody-here: created",
        "metric error_rate: created",
        "flag platform: created",
        "flag assistant: created",
        "plan careful: created",
    ]
    assert said[7].startswith("rollout assistant off -> on in production: created, ro_")
    assert said[7].endswith("draft")
    flag = site.http.get("/api/v1/flags/assistant").json()
    assert flag["variants"] == {"on": True, "off": False}

    again = run("apply", "-f", str(files), "--start").out.splitlines()
    assert [line.rpartition(": ")[2] for line in again[:7]] == ["unchanged"] * 7
    assert again[7].endswith("started")
    assert "unchanged" in again[7]
    assert len(site.http.get("/api/v1/rollouts").json()) == 1
    assert run("apply", "-f", str(files), "--start").out.splitlines()[7].endswith("running")

    files.write_text(DOCUMENTS.replace("units: [ann, bob]", "units: [ann, bob, eve]"))
    assert run("apply", "-f", str(files)).out.splitlines()[1] == "cohort staff: changed"


def test_apply_never_starts_again_by_itself_what_was_rolled_back(site: Site, run: Run, files: Path) -> None:
    assert run("apply", "-f", str(files), "--start").code == 0
    rollout = site.http.get("/api/v1/rollouts").json()[0]["id"]
    site.act(rollout, "roll_back", reason="answers were wrong")
    again = run("apply", "-f", str(files), "--start")
    assert again.code == 1
    assert again.out.splitlines()[:7][-1] == "plan careful: unchanged"
    assert f"rollout {rollout}: rolled back at 20" in again.err
    assert "answers were wrong\nnothing started. To try again: rollout apply ... --start --again" in again.err
    assert len(site.http.get("/api/v1/rollouts").json()) == 1

    meant = run("apply", "-f", str(files), "--start", "--again")
    assert (meant.code, meant.out.splitlines()[-1].endswith("started")) == (0, True)
    assert [each["status"] for each in site.http.get("/api/v1/rollouts").json()] == ["running", "rolled_back"]


def test_apply_tries_a_changed_plan_after_a_rollback(site: Site, run: Run, files: Path) -> None:
    run("apply", "-f", str(files), "--start")
    site.act(site.http.get("/api/v1/rollouts").json()[0]["id"], "roll_back", reason="too fast")
    files.write_text(DOCUMENTS.replace("min_units: 500", "min_units: 5000"))
    changed = run("apply", "-f", str(files), "--start")
    assert (changed.code, changed.out.splitlines()[-1].endswith("started")) == (0, True)


def test_apply_leaves_a_completed_rollout_alone(site: Site, run: Run, tmp_path: Path) -> None:
    site.populate()
    path = tmp_path / "ramp.yaml"
    path.write_text(
        "{kind: Rollout, flag: answer, environment: production, baseline: v7, candidate: v8, "
        "stages: [{name: all, percentage: 100, min_duration: 1h}]}"
    )
    run("apply", "-f", str(path), "--start")
    rollout = site.http.get("/api/v1/rollouts").json()[0]["id"]
    site.act(rollout, "advance", reason="it is a timed ramp")
    again = run("apply", "-f", str(path), "--start")
    assert (again.code, again.out) == (0, f"rollout {rollout}: completed already, unchanged")
    assert len(site.http.get("/api/v1/rollouts").json()) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("min_units: 500", "min_unit: 500"), "document 2: stages[1].min_unit: there is no field 'min_unit' here"),
        (("percentage: 1,", "percentage: one,"), "document 2: stages[1].percentage: Expected `float`"),
        (
            ("approval: required", "approval: true"),
            "document 2: stages[0].approval: Expected `str | object | null`, got `bool`; write required",
        ),
        (
            ("{absolute: 0.005}", "5%"),
            "document 2: guardrails[0].max_regression: Expected `object`, got `str`; write "
            "{absolute: 0.05} or {relative: 0.1}",
        ),
        (("kind: Plan", "kind: Plane"), "document 2: kind: 'Plane' is no kind of document; use one of Environment"),
        (
            ("cohort: everybody-here, percentage", "cohort: nobody, percentage"),
            "stages[0].cohort: there is no cohort 'nobody'",
        ),
        (("candidate: on", "candidate: off"), "candidate: is the same variant as the baseline"),
        (("key: staff\n", "key: staff\nkey: stuff\n"), "the key 'key' is there twice"),
        (("{cohort: staff}", "{cohort: everybody-here}"), "when: cohort 'everybody-here' would contain itself"),
        (("flag: platform,", "flag: platform"), "is no YAML"),
    ],
)
def test_apply_refuses_what_is_wrong_with_its_path(run: Run, files: Path, change: tuple[str, str], says: str) -> None:
    assert change[0] in DOCUMENTS
    files.write_text(DOCUMENTS.replace(*change))
    result = run("apply", "-f", str(files))
    assert result.code == 1
    assert says in result.err
    assert "Traceback" not in result.err


def test_status_tells_people_and_programs_where_a_rollout_stands(site: Site, run: Run, files: Path) -> None:
    assert run("apply", "-f", str(files), "--start").code == 0
    people = run("status", "assistant").out
    assert "assistant off -> on in production" in people
    assert "now    running, stage pilot, 100 % of cohort everybody-here on on" in people
    assert "next   canary at 1 %, not before 20" in people
    rollout = site.http.get("/api/v1/rollouts").json()[0]["id"]
    program = json.loads(run("status", rollout, "--json").out)
    assert (program["id"], program["status"]) == (rollout, "running")
    missing = run("status", "nothing")
    assert missing.code == 1
    assert "there is no rollout 'nothing'" in missing.err


def test_kill_and_restore_go_through_the_service(site: Site, run: Run, files: Path) -> None:
    run("apply", "-f", str(files), "--start")
    assert run("kill", "assistant", "-e", "production", "--reason", "smoke").code == 0
    state = site.http.get("/api/v1/flags/assistant/state?environment=production").json()
    assert state["state"]["kill_reason"] == "smoke"
    assert "paused, stage pilot, 0 % of cohort everybody-here on on (killed)" in run("status", "assistant").out
    assert run("kill", "assistant", "-e", "production").out.startswith("assistant is killed in production (already):")
    assert run("restore", "assistant", "-e", "production").code == 0
    assert "(already)" not in run("kill", "assistant", "-e", "production").out
    gone = run("kill", "gone", "-e", "production")
    assert (gone.code, gone.err.strip()) == (1, "there is no flag 'gone'")


def test_keys_are_made_listed_and_revoked(site: Site, run: Run) -> None:
    made = run("keys", "create", "--name", "ci", "--scope", "viewer", "--scope", "editor")
    assert made.code == 0
    secret = made.out.strip()
    assert secret.startswith("rl_")
    listed = run("keys", "list").out
    assert "ci  every environment  viewer,editor" in listed
    assert secret not in listed
    identifier = next(line.split()[0] for line in listed.splitlines() if "  ci  " in line)
    assert run("keys", "revoke", identifier).code == 0
    assert "revoked 20" in run("keys", "list").out
    assert site.http.get("/api/v1/flags", headers={"Authorization": f"Bearer {secret}"}).status_code == 401


def test_without_a_key_or_a_service_it_says_what_to_do(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLOUT_URL", "http://127.0.0.1:9")
    assert "start it with 'rollout serve'" in run("status", "x").err
    for empty in ("", " "):
        monkeypatch.setenv("ROLLOUT_KEY", empty)
        assert "set ROLLOUT_KEY" in run("status", "x").err
    monkeypatch.delenv("ROLLOUT_KEY")
    assert "set ROLLOUT_KEY" in run("status", "x").err


@pytest.mark.parametrize(
    "text",
    [
        "kind: Cohort\nkey: c\nunits: [.nan]",
        'kind: Cohort\nkey: c\nunits: ["\\ud800"]',
        "kind: Cohort\nkey: ../keys?x=\nunits: [a]",
        "kind: Cohort\nkey: c\nunits: &a [*a]",
        "kind: Cohort\nkey: c\nunits: !!int abc",
        "kind: Cohort\nkey: c\nunits: " + "[" * 3000 + "]" * 3000,
        "kind: Cohort\nkey: c\nunits: [a]\n---\nkind: Cohort\nkey: c\nunits: [b]",
    ],
)
def test_a_file_that_no_document_can_carry_is_refused_in_a_sentence(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(BadFile) as refused:
        read([file])
    assert "Traceback" not in str(refused.value)


def test_numbers_are_read_as_yaml_1_2(tmp_path: Path) -> None:
    file = tmp_path / "flag.yaml"
    file.write_text("kind: Flag\nkey: f\ndefault_variant: a\nvariants: {a: 010, b: 12:30, c: 1e3, d: 0o17, e: 0x1f}")
    (flag,) = read([file])
    assert isinstance(flag, Flag)
    assert flag.variants == {"a": 10, "b": "12:30", "c": 1000.0, "d": 15, "e": 31}
