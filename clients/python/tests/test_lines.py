"""Reading and writing a ruleset by lines: the same document as in one go, and the same errors, whatever the layout."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_client.evaluation import lines
from rollout_client.evaluation.ruleset import Ruleset


def flag(number: int) -> dict[str, Any]:
    return {"variants": {"on": 'a\n"}', "off": {"flags": {}}}, "default_variant": "on", "salt": f"s\n{number}"}


def document(flags: int) -> dict[str, Any]:
    keys = (f'f"{number}\n' for number in range(flags))
    whole = {"environment": 'e"flags":{', "revision": 7, "flags": {key: flag(n) for n, key in enumerate(keys)}}
    return {**whole, "cohorts": {"c": {"units": ["u"]}}, "edition": "one"}


@pytest.fixture
def few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_SLICE", 2)


@pytest.mark.parametrize("flags", [0, 1, 2, 3, 4, 9])
@pytest.mark.usefixtures("few_at_a_time")
def test_what_is_written_is_read_again(flags: int) -> None:
    ruleset = msgspec.convert(document(flags), Ruleset)
    content = lines.encode(ruleset)
    assert content.count(b"\n") == max(flags, 1) + 1
    assert lines.decode(content) == ruleset == msgspec.json.decode(content, type=Ruleset)
    assert json.loads(content) == json.loads(msgspec.json.encode(ruleset))


def test_others_go_on_in_between() -> None:
    ruleset = msgspec.convert(document(1_000), Ruleset)
    pauses: list[str] = []
    content = lines.encode(ruleset, lambda: pauses.append("w"))
    lines.decode(content, lambda: pauses.append("r"))
    assert pauses == ["w"] * 4 + ["r"] * 4


@pytest.mark.parametrize("layout", [{}, {"indent": 1}, {"separators": (",\n", ":\n")}, {"separators": (",\n", ":")}])
@pytest.mark.parametrize(
    "changed", [{}, {"unknown": [1]}, {"revision": "x"}, {"flags": []}, {"flags": {"f": {"variants": 3}}}]
)
@pytest.mark.usefixtures("few_at_a_time")
def test_another_layout_is_read_as_well(layout: dict[str, Any], changed: dict[str, Any]) -> None:
    content = json.dumps(document(9) | changed, **layout).encode()
    assert outcome(lines.decode, content) == outcome(whole, content)
    assert outcome(lines.decode, content[:-5]) == outcome(whole, content[:-5])


@given(st.data())
def test_a_damaged_text_is_no_other_document(data: st.DataObject) -> None:
    content = lines.encode(msgspec.convert(document(9), Ruleset))
    at, length = data.draw(st.integers(0, len(content))), data.draw(st.integers(0, 40))
    into = data.draw(st.sampled_from([b"", b"\n", b"}", b"{", b",", b'"', b"},{", b"}\n,{", b'"flags":{\n', b"\xff"]))
    damaged = content[:at] + into + content[at + length :]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "_SLICE", 2)
        found = outcome(lines.decode, damaged)
    assert found == outcome(whole, damaged)


def test_the_last_flag_may_share_its_line_with_what_follows() -> None:
    content = lines.encode(msgspec.convert(document(300), Ruleset)).replace(b"\n}", b"}")
    assert len(lines.decode(content).flags) == 300


def whole(content: bytes) -> Ruleset:
    return msgspec.json.decode(content, type=Ruleset)


def outcome(read: Any, content: bytes) -> Any:
    """The ruleset, or what is said instead."""
    try:
        return read(content)
    except (msgspec.DecodeError, UnicodeError) as error:
        return str(error)
