"""`rollout simulate`: a plan, its metrics and an expectation in files; no service, no key."""

import json
from pathlib import Path

import pytest

from rollout.cli.main import main

METRIC = "kind: proportion\nkey: errors\nevent: it failed\n"
PLAN = """
kind: Plan
key: careful
stages: [{name: few, percentage: 5, min_duration: 10m}, {name: half, percentage: 50, min_duration: 10m}]
guardrails: [{metric: errors, max_regression: {relative: 0.5}}]
"""
ROLLOUT = """
kind: Rollout
flag: answer
environment: production
baseline: "off"
candidate: "on"
plan: careful@2
"""
EXPECTATION = """
kind: Expectation
requests_per_minute: 2000
runs: 20
metrics: {errors: {rate: 0.1}}
regressions: [{metric: errors, times: 2}]
"""


def simulated(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    *documents: str,
    as_json: bool = False,
) -> tuple[object, str, str]:
    file = folder / "plan.yaml"
    file.write_text("---\n".join(documents))
    monkeypatch.setattr("sys.argv", ["rollout", "simulate", "-f", str(file), *(["--json"] if as_json else [])])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, *capsys.readouterr()


def test_a_forecast_is_said_and_given_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, _ = simulated(monkeypatch, capsys, tmp_path, METRIC, PLAN, ROLLOUT, EXPECTATION)
    said = out.splitlines()
    assert (code, said[0]) == (0, "20 runs each, a look every minute")
    assert said[1].startswith("no difference: 100.0% completed")
    assert said[1].endswith("0.0% taken back wrongly")
    assert said[2] == "  stage few (5 %): 0.2 h (nine in ten within 0.2 h); passed last: min_duration in 100%"
    assert said[4].startswith("errors x 2 from stage few on: 100.0% taken back; ")
    assert "units to the candidate; " in said[5]
    assert said[5].endswith(" of them")
    code, out, _ = simulated(monkeypatch, capsys, tmp_path, METRIC, PLAN, EXPECTATION, as_json=True)
    assert [fate["stage"] for fate in json.loads(out)["fates"]] == ["few", "few", "half"]


@pytest.mark.parametrize(
    ("documents", "said"),
    [
        ((METRIC, PLAN), "exactly one document of kind Expectation; the files have 0"),
        ((METRIC, EXPECTATION), "exactly one document of kind Rollout, or else one Plan; the files have 0"),
        ((METRIC, ROLLOUT, EXPECTATION), "names the plan 'careful', which is in none of the files"),
        ((PLAN, EXPECTATION), "the plan: guardrails[0].metric"),
        ((METRIC, PLAN, EXPECTATION.replace("rate: 0.1", "rate: 3")), "the expectation: metrics.errors.rate: give"),
        ((METRIC, PLAN, EXPECTATION.replace("runs", "rums")), "there is no field 'rums' here"),
        ((METRIC, PLAN.replace("50,", "100,"), EXPECTATION), "the plan: stages[1].percentage"),
    ],
)
def test_what_is_wrong_is_said_with_its_path(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    documents: tuple[str, ...],
    said: str,
) -> None:
    code, _, err = simulated(monkeypatch, capsys, tmp_path, *documents)
    assert code == 1
    assert said in err
