"""Whatever arrives, something sensible stays served."""

import json
import stat
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.python.tests.service import document
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.evaluate import evaluate
from rollout_client.evaluation.ruleset import Ruleset
from rollout_client.lastknown import FORMAT, Cache
from rollout_client.report import Reporter
from rollout_client.served import Served, lapsed_leases

FLAG = "support-answer"
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5))


def served() -> Served:
    made = Served("production", frozenset(), lambda: 0.0, Reporter())
    assert made.adopt(msgspec.convert(document(1, lease_ms=None), Ruleset), "service", 0)
    return made


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, one in inner for found in paths(one, (*path, key)))]


WHERE = [path for path in paths(document()) if path]


@settings(deadline=None)
@given(st.sampled_from(WHERE), st.one_of(SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(st.text(), SCALARS)))
def test_one_wrong_value_anywhere_is_served_or_refused_whole(where: tuple[Any, ...], value: Any) -> None:
    changed: Any = document(2)
    inner = changed
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    client = served()
    try:
        ruleset = msgspec.json.decode(json.dumps(changed), type=Ruleset)
    except msgspec.DecodeError:
        return
    before = client.current
    if not client.adopt(ruleset, "service"):
        assert client.current is before
    assert client.current is not None
    answer = evaluate(client.current.compiled, FLAG, Context("user-1"), client.current.lapsed, default="d")
    assert answer.error in (None, "FLAG_NOT_FOUND", "TARGETING_KEY_MISSING")


@settings(deadline=None, max_examples=50)
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=50).map(lambda body: FORMAT + b"0" * 64 + b"\n" + body)))
def test_any_bytes_in_the_cache_file_are_no_ruleset(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    directory = tmp_path_factory.mktemp("cache")
    cache = Cache(directory, "service production", Reporter())
    cache.save(msgspec.convert(document(), Ruleset))
    [file] = directory.iterdir()
    file.write_bytes(content)
    assert cache.load() is None


def test_the_cache_gives_back_what_it_was_given(tmp_path: Path) -> None:
    ruleset = msgspec.convert(document(7), Ruleset)
    cache = Cache(tmp_path / "not" / "there", "service production", Reporter())
    assert cache.load() is None
    cache.save(ruleset)
    assert cache.load() == ruleset
    assert Cache(tmp_path / "not" / "there", "service staging", Reporter()).load() is None


def test_only_its_owner_can_read_the_cache(tmp_path: Path) -> None:
    Cache(tmp_path / "kept", "service production", Reporter()).save(msgspec.convert(document(), Ruleset))
    [file] = (tmp_path / "kept").iterdir()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file.parent, file)] == [0o700, 0o600]


def test_a_path_that_cannot_be_one_is_reported() -> None:
    reporter = Reporter()
    cache = Cache("no\0where", "service production", reporter)
    cache.save(msgspec.convert(document(), Ruleset))
    assert "cannot be kept" in (reporter.last_error or "")
    assert cache.load() is None


def test_a_cache_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    reporter = Reporter()
    Cache(tmp_path / "file", "service production", reporter).save(msgspec.convert(document(), Ruleset))
    assert "cannot be kept" in (reporter.last_error or "")


def test_a_lease_lapses_after_its_length_and_not_before() -> None:
    leases = frozenset({1_000, 60_000})
    assert lapsed_leases(leases, None, 0.0) == (leases | {None}, None)
    assert lapsed_leases(leases, 10.0, 11.0) == (frozenset(), 11.0)
    assert lapsed_leases(leases, 10.0, 11.001) == (frozenset({1_000}), 70.0)
    assert lapsed_leases(leases, 10.0, 70.5) == (leases, None)
    assert lapsed_leases(frozenset(), 10.0, 70.5) == (frozenset(), None)


def test_no_answer_mixes_two_revisions() -> None:
    rulesets = []
    for revision in (2, 3):
        made = document(revision, lease_ms=None)
        made["flags"][FLAG]["variants"] = {"v7": f"small {revision}", "v8": f"large {revision}"}
        rulesets.append(msgspec.convert(made, Ruleset))
    client = served()
    assert client.adopt(rulesets[0], "service")
    done, mixed = threading.Event(), list[Any]()

    def ask() -> None:
        while not done.is_set():
            current = client.current
            answer = evaluate(current.compiled, FLAG, Context("user-1"), current.lapsed)
            if answer.value != f"large {answer.revision}":
                mixed.append(answer)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for turn in range(400):
        assert client.adopt(rulesets[turn % 2], "service")
    done.set()
    for thread in threads:
        thread.join()
    assert not mixed


def test_a_flag_killed_while_a_ruleset_is_compiled_is_killed_in_it() -> None:
    client = Served("production", frozenset(), lambda: 0.0, Reporter())
    compiled = client.compile(msgspec.convert(document(), Ruleset))
    assert compiled is not None
    client.kill(frozenset({FLAG}))  # by the file that is watched, while a large one is compiled aside
    client.take(compiled, "service", 0, 0.0)
    assert client.current is not None
    assert evaluate(client.current.compiled, FLAG, Context("user-1")).reason == "DISABLED"
