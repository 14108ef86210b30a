"""What must hold whatever is served, and whatever comes instead of it."""

from __future__ import annotations

import json
import tempfile
import threading
from pathlib import Path

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clients.python.tests.service import document
from rollout_client import Client, Context
from rollout_client.evaluation import lines
from rollout_client.evaluation.ruleset import Patch, Ruleset
from rollout_client.lastknown import FORMAT, Cache
from rollout_client.report import Reporter

FLAG = "support-answer"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
SERVED = json.dumps(document()).encode()


@given(st.integers(0, 100_000), st.integers(0, 100_000))
@settings(max_examples=10, deadline=None)
def test_eight_threads_never_see_two_revisions_in_one_answer(one: int, other: int) -> None:
    rulesets = []
    for revision, threshold in ((1, one), (2, other)):
        made = document(revision, threshold)
        made["flags"][FLAG]["variants"] = {"v7": f"small {revision}", "v8": f"large {revision}"}
        rulesets.append(msgspec.convert(made, Ruleset))
    client = Client("http://127.0.0.1:9", "key", environment="production")
    assert client._served.adopt(rulesets[0], "service", 0)
    done, mixed = threading.Event(), []

    def ask() -> None:
        while not done.is_set():
            answer = client.evaluate(FLAG, Context("user-1"))
            if not str(answer.value).endswith(f" {answer.revision}"):
                mixed.append(answer)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for turn in range(60):
        assert client._served.adopt(rulesets[turn % 2], "service", 0)
    done.set()
    for thread in threads:
        thread.join()
    assert not mixed


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """Any bytes, and a document with some of its bytes changed, left out or cut off."""
    changed = st.tuples(st.integers(0, len(content) - 1), st.integers(0, 30), st.binary(max_size=20)).map(
        lambda cut: content[: cut[0]] + cut[2] + content[cut[0] + cut[1] :]
    )
    return st.binary(max_size=200) | changed | JSON.map(lambda value: json.dumps(value).encode())


@given(damaged(SERVED))
@settings(deadline=None)
def test_any_bytes_as_a_ruleset_or_patch_leave_the_client_serving(content: bytes) -> None:
    client = Client("http://127.0.0.1:9", "key", environment="production", bootstrap=document())
    before = client._served.current
    for kind in (Ruleset, Patch):
        try:
            found = lines.decode(content) if kind is Ruleset else msgspec.json.decode(content, type=Patch)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            continue
        if kind is Ruleset:
            adopted = client._served.adopt(found, "service", 0)
        else:
            adopted = client._served.patched(found) is not None
        assert adopted or client._served.current is before
    assert client.evaluate(FLAG, Context("user-1"), "mine").error in (None, "FLAG_NOT_FOUND", "TARGETING_KEY_MISSING")


@given(damaged(FORMAT + b"0" * 64 + b"\n" + SERVED))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_as_a_cache_file_are_ignored(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(folder, "identity", Reporter())
        cache.save(msgspec.convert(document(), Ruleset))
        (path,) = Path(folder).iterdir()
        path.write_bytes(content)
        assert cache.load() is None
