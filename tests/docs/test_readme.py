"""The README is executed: its documents applied, its commands run, its client example run to the automatic rollback."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import yaml

from rollout.cli.files import read_all
from rollout.cli.simulate import simulate
from rollout.db.world import World
from rollout.domain.cohort import Cohort
from rollout.domain.flag import Flag
from rollout.domain.metric import Metric
from rollout.domain.plan import RolloutDocument
from rollout.domain.plan_problems import rollout_problems
from rollout.settings import Settings
from tests.journeys.service import ADMIN, Service

README = (Path(__file__).parents[2] / "README.md").read_text()
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("rollout ")
]


def block(language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert len(found) == 1, f"the walk has one {language} block"
    return str(found[0])


@pytest.fixture
def opened(sqlite_url: str, tmp_path: Path) -> Iterator[Service]:
    service = Service(sqlite_url, tmp_path / "service.log")
    try:
        service.start()
        yield service
    finally:
        service.close()


def test_the_walk_from_an_empty_flag_ends_in_an_automatic_rollback(opened: Service, tmp_path: Path) -> None:
    (tmp_path / "answer.yaml").write_text(block("yaml"))
    (tmp_path / "app.py").write_text(block("python"))
    environment = {**os.environ, "ROLLOUT_URL": opened.url, "ROLLOUT_KEY": ADMIN}

    def run(command: str) -> str:
        words = [sys.executable, "-m", "rollout", *shlex.split(command)[1:]]
        done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    printed = {command: run(command) for command in COMMANDS if command.startswith(("rollout apply", "rollout keys"))}
    assert len(printed) == 2
    secret = re.search(r"rl_\S+", "".join(out for command, out in printed.items() if "keys" in command))
    assert secret is not None
    environment["ROLLOUT_APP_KEY"] = secret[0]
    application = subprocess.run(
        [sys.executable, "-W", "error", "app.py"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert application.returncode == 0, application.stderr
    assert application.stdout.splitlines()[-1] == "small"
    assert "rolled_back" in run("rollout status support-answer")
    rest = [command for command in COMMANDS if command not in printed and "status" not in command]
    assert len(rest) == 2
    for command in rest:
        run(command)


def test_every_setting_is_in_the_table() -> None:
    for field in Settings.model_fields:
        assert f"ROLLOUT_{field.upper()}" in README, f"{field} is not documented"


def test_every_file_it_links_to_exists() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (Path(__file__).parents[2] / target).exists(), target


def test_the_whole_plan_is_one_that_can_be_saved() -> None:
    document = msgspec.convert(yaml.safe_load(README.split("## A whole plan")[1].split("```\n")[1]), RolloutDocument)
    metrics = {key: Metric(key=key, kind="proportion", event=key) for key in ("error_rate", "thumbs_down")}
    metrics["answer_correct"] = Metric(
        key="answer_correct", kind="proportion", event="correct", direction="higher_is_better"
    )
    metrics |= {
        "latency_ms": Metric(key="latency_ms", kind="quantile"),
        "cost_usd": Metric(key="cost_usd", kind="mean"),
    }
    world = World(
        flags={"support-reply": Flag(key="support-reply", variants={"v7": 7, "v8": 8}, default_variant="v7")},
        cohorts={"staff": Cohort(key="staff", units=("ann",))},
        metrics=metrics,
        environments=frozenset({"production"}),
    )
    assert rollout_problems(document, world) == []


def test_the_simulated_file_is_one_that_can_be_simulated(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    block = README.split("## Before it starts")[1].split("```\n")[1]
    file.write_text(block.replace("units: 5000", "runs: 20\nunits: 5000"))
    found = simulate(read_all([file]))
    assert [stage.stage for stage in found.stages] == ["canary", "half"]
    assert {fate.regression.metric for fate in found.fates if fate.regression} == {"error_rate", "latency_ms"}
