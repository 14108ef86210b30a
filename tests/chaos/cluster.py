"""A PostgreSQL that fails over: a primary and its synchronous streaming replica, both real, and one address."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from tests.postgres import SUPERUSER, PostgresServer, running_replica, running_server

DATABASE = "chaos"
_SETTINGS = {"wal_level": "replica", "synchronous_commit": "on", "max_wal_senders": "4"}


@dataclass
class Cluster:
    """`down` is when the primary was killed and when its replica had been promoted (unix seconds), None before."""

    primary: PostgresServer
    replica: PostgresServer
    down: tuple[float, float] | None = None

    @property
    def url(self) -> str:
        """Both servers, as a person would write them into ROLLOUT_DATABASE_URL."""
        servers = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.replica.port}"
        return f"postgresql://{SUPERUSER}@{servers}/{DATABASE}?target_session_attrs=read-write"

    def connect(self) -> "psycopg.Connection[tuple[object, ...]]":
        """A connection of the driver's own to whichever server takes writes."""
        return psycopg.connect(self.url, autocommit=True, connect_timeout=2)

    def fail_over(self, pause: float = 0.0) -> None:
        """Kill the primary with -9, and promote the replica after a pause (seconds)."""
        began = time.time()
        self.primary.kill()
        time.sleep(pause)
        with self.replica.connect() as connection:
            assert connection.execute("SELECT pg_promote(true, 30)").fetchone() == (True,)
        self.down = (began, time.time())


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A primary that acknowledges nothing before its replica has it."""
    with running_server(_SETTINGS) as primary:
        primary.create_database(DATABASE)
        with running_replica(primary, _SETTINGS) as replica:
            with primary.connect() as connection:
                connection.execute(sql.SQL("ALTER SYSTEM SET synchronous_standby_names = '*'"))
                connection.execute("SELECT pg_reload_conf()")
                while connection.execute("SELECT sync_state FROM pg_stat_replication").fetchall() != [("sync",)]:
                    time.sleep(0.05)
            yield Cluster(primary, replica)
