"""The database fails over under a running service, and processes are killed: nothing is lost or done twice."""

from pathlib import Path

import pytest

from tests.chaos.cluster import cluster
from tests.chaos.storm import Weather, storm
from tests.journeys.service import service, until
from tests.journeys.test_recovery import Application, assert_recorded_once, judged_requests

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("failover")]


def test_a_service_goes_on_where_its_database_has_failed_over_to(tmp_path: Path) -> None:
    often = {"ROLLOUT_HEARTBEAT_SECONDS": "0.3", "ROLLOUT_LOG_LEVEL": "debug"}
    with cluster() as database, service(database.url, tmp_path, **often) as opened:
        identifier = opened.rollout(stages=[{"name": "half", "percentage": 50, "min_duration": "1h"}])
        application = Application(opened, failing=0.02)
        try:
            until(lambda: judged_requests(opened, identifier) > 30, 20, "evidence is judged")
            database.fail_over(pause=3.0)
            before = application.attempts
            took = until(lambda: opened.http.get("/health/ready").status_code == 200, 10, "it is ready again")
            assert took < 5
            until(lambda: judged_requests(opened, identifier) > before, 30, "what was served since is judged")
            assert "/sdk/v1/stream" not in opened.log.read_text(), "a stream that ended would be in the log"
        finally:
            application.stop()
            application.client.close(20)
        assert not any(application.client.status().dropped.values())
        until(lambda: judged_requests(opened, identifier) == application.attempts, 10, "every outcome is judged once")
        assert_recorded_once(opened, identifier, ["start"])


def test_nothing_is_lost_in_a_short_storm(tmp_path: Path) -> None:
    rows, findings = storm(Weather(seconds=20, roles=("all", "worker"), per_second=80), tmp_path)
    assert not any(findings.faults.values()), findings.faults
    assert all(row.holds for row in rows), "\n".join(row.text() for row in rows)
