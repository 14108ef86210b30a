"""What is published: the reference says what the docstrings say, and the wheel holds what it must."""

import re
import zipfile
from pathlib import Path

import pytest

import rollout_client
from clients.python.tests import reference
from rollout_client import openfeature, testing

HERE = Path(rollout_client.__file__).parents[2]


def test_the_reference_is_what_the_docstrings_say() -> None:
    written = reference.FILE.read_text(encoding="utf-8")
    assert written == reference.reference(), "run: python -m clients.python.tests.reference"


@pytest.mark.parametrize("module", [rollout_client, openfeature, testing])
def test_every_public_name_is_in_the_reference(module: object) -> None:
    written = set(re.findall(r"^### (\w+)$", reference.FILE.read_text(encoding="utf-8"), re.MULTILINE))
    names = {name for name in getattr(module, "__all__") if not name.startswith("__")}  # noqa: B009
    assert names <= written


def test_the_wheel_says_that_it_is_typed(tmp_path: Path) -> None:
    hatchling = pytest.importorskip("hatchling.builders.wheel")
    [wheel] = hatchling.WheelBuilder(str(HERE)).build(directory=str(tmp_path), versions=["standard"])
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"rollout_client/py.typed", "rollout_client/openfeature.py", "rollout_client/testing.py"} <= names
    [metadata] = [name for name in names if name.endswith("METADATA")]
    described = zipfile.ZipFile(wheel).read(metadata).decode()
    assert "Provides-Extra: openfeature" in described
    assert not [name for name in names if "tests" in name]
