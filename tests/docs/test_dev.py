"""The developer tool says what it can do, and the locks name no place to get things from."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import dev

ROOT = Path(__file__).parents[2]
LOCKS = ["run.txt", "dev.txt", "uv.txt"]


def run(*args: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(folder / "dev.py"), *args], capture_output=True, text=True, timeout=60)


def test_a_wrong_command_is_refused_with_the_commands_there_are() -> None:
    done = run("tset")
    assert done.returncode == 2
    assert "'tset'" in done.stderr
    for command in ("demo", "test", "check", "serve", "bench", "chaos", "lock"):
        assert re.search(rf"^  {command} .*[.;]", done.stderr, re.MULTILINE), command


def test_no_command_is_refused_and_help_is_not() -> None:
    assert run().returncode == 2
    assert run("--help").returncode == 0
    assert run("--help").stdout == run().stdout


def test_an_unknown_bench_is_refused_with_the_benches_there_are() -> None:
    done = run("bench", "everything")
    assert done.returncode == 2
    assert "'everything'" in done.stderr
    for path in (ROOT / "benches").glob("[!_]*.py"):
        assert path.stem in done.stderr


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_versions_and_hashes_and_no_place(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    assert not re.search(r"://|index-url|find-links|trusted-host|file:|@ ", text)
    requirements = re.findall(r"^[a-z].*", text, re.MULTILINE)
    assert requirements
    for requirement in requirements:
        assert re.fullmatch(r"[a-z0-9.\-]+(\[[a-z,]+\])?==\S+( ; .+)? \\", requirement)
    assert len(re.findall(r" \\\n    --hash=sha256:", text)) >= len(requirements)


def test_what_is_tested_is_what_is_run() -> None:
    pinned = re.compile(r"^[a-z].*", re.MULTILINE)
    run_lock = set(pinned.findall((ROOT / "requirements" / "run.txt").read_text()))
    dev_lock = set(pinned.findall((ROOT / "requirements" / "dev.txt").read_text()))
    versions = {line.split(" ;")[0].rstrip(" \\") for line in dev_lock}
    assert {line.split(" ;")[0].rstrip(" \\") for line in run_lock} <= versions


def test_a_path_of_a_machine_is_found_in_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    (tmp_path / "README.md").write_text("Look at https://example.org/home/page.\n")
    assert dev.foreign_addresses() == []
    (tmp_path / "README.md").write_text("fine\nLook into /" + "home/somebody/notes.\n")
    assert dev.foreign_addresses() == ["README.md:2: '/" + "home/s' looks like a path of one machine"]


def test_a_file_is_too_long_from_line_401_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    (tmp_path / "module.py").write_text("pass\n" * 400)
    assert dev.long_files() == []
    (tmp_path / "module.py").write_text("pass\n" * 401)
    assert [line.split(",")[0] for line in dev.long_files()] == ["module.py: 401 lines"]


def test_an_environment_is_made_again_when_a_lock_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = tmp_path / "dev.txt"
    changed.write_bytes((ROOT / "requirements" / "dev.txt").read_bytes())
    monkeypatch.setattr(dev, "LOCK", changed)
    before = dev.fingerprint()
    changed.write_text("")
    assert dev.fingerprint()["content"] != before["content"]
    assert dev.fingerprint()["home"] == before["home"]


def test_uv_goes_by_what_pip_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nindex-url = https://packages.example/simple\ntimeout = 7\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://one.example https://two.example")
    monkeypatch.setenv("UV_HTTP_TIMEOUT", "90")
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX"):
        monkeypatch.delenv(name, raising=False)
    env = dev.uv_environment()
    assert env["UV_DEFAULT_INDEX"] == "https://packages.example/simple"
    assert env["UV_INDEX"] == "https://one.example https://two.example"
    assert env["UV_HTTP_TIMEOUT"] == "90"  # said to uv itself, which wins
