"""A running service for each test: `site` on SQLite, `each_site` on both databases.

`unchanged_site` is one for many tests, with documents in it, for what is refused and so changes nothing.
"""

from collections.abc import Iterator

import pytest

from rollout.cli.main import main
from tests.shell.http.command import Result, Run
from tests.shell.http.server import ADMIN, Site, serving


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


@pytest.fixture
def run(site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`rollout ARGUMENTS` in this process, with the admin key."""
    monkeypatch.setenv("ROLLOUT_URL", site.url)
    monkeypatch.setenv("ROLLOUT_KEY", ADMIN)

    def command(*arguments: str) -> Result:
        monkeypatch.setattr("sys.argv", ["rollout", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        out, err = capsys.readouterr()
        served = ("[debug", "[info", "[error", "[warning")  # the service of the test logs into the same process
        lines = [line for line in out.splitlines() if not any(word in line for word in served)]
        return Result(code if isinstance(code, int) else 0, "\n".join(lines), err)

    return command
