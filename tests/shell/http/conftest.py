"""A running service for each test: `site` on SQLite, `each_site` on both databases.

`unchanged_site` is one for many tests, with documents in it, for what is refused and so changes nothing.
"""

from collections.abc import Iterator

import pytest

from tests.shell.http.server import Site, serving


@pytest.fixture
def site(sqlite_url: str) -> Iterator[Site]:
    with serving(sqlite_url) as running:
        yield running


@pytest.fixture
def each_site(database_url: str) -> Iterator[Site]:
    with serving(database_url) as running:
        yield running


@pytest.fixture(scope="session")
def unchanged_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving(f"sqlite:///{tmp_path_factory.mktemp('unchanged')}/rampline.db") as running:
        running.populate()
        yield running
