"""The composition root: settings in, an application out. The only place where everything meets."""

import asyncio
import contextlib
import fcntl
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog
from litestar import Litestar
from litestar.di import Provide

from rollout.api.access import AccessLog
from rollout.api.auth import Gatekeeper, caller_of
from rollout.api.body import StrictRequest
from rollout.api.keyring import Keyring
from rollout.api.keys import make
from rollout.api.limits import Limiter, Rates
from rollout.api.problems import HANDLERS
from rollout.api.routes import openapi, probes, routes
from rollout.api.service import Service
from rollout.db import keys
from rollout.db.keys import Key
from rollout.db.migrate import migrate
from rollout.db.outage import passing
from rollout.db.session import Database, Duplicate
from rollout.delivery.hub import Hub
from rollout.engine.aside import Aside
from rollout.engine.clock import Clock
from rollout.engine.control import Control
from rollout.engine.hints import Hints
from rollout.errors import RolloutError
from rollout.settings import Settings
from rollout.telemetry import places

FOLLOW_SECONDS = 1.0
"""How often a process looks for rulesets that another one published, and for the engine's age."""
_log = structlog.get_logger("rollout.app")


@dataclass(frozen=True, slots=True)
class Engine:
    """What this process runs beside answering: the clock unless its role is `api`, and the hints of others."""

    clock: Clock | None
    hints: Hints

    async def start(self) -> None:
        """Begin."""
        await self.hints.start()
        if self.clock is not None:
            await self.clock.start()

    async def stop(self) -> None:
        """End; a round in flight is finished."""
        await self.hints.stop()
        if self.clock is not None:
            await self.clock.stop()


class InUse(RolloutError):
    """Another process has this database open, and SQLite serves one; stop it, or use PostgreSQL."""


class Unreachable(RolloutError):
    """The database cannot be reached; check ROLLOUT_DATABASE_URL."""


def create_app(settings: Settings) -> Litestar:
    """The whole service. No I/O happens before its lifespan begins.

    Raises:
        Unreachable: the database's address cannot be read.
    """
    try:
        database = Database(settings.database_url)
    except ValueError as error:
        raise Unreachable(f"ROLLOUT_DATABASE_URL is no address of a database: {error}") from None
    control = Control(database, Hub(database))
    clock = Clock(control, tick=settings.tick_seconds) if settings.role != "api" else None
    hints = Hints(control, clock.nudge) if clock is not None else Hints(control)
    keyring = Keyring(database)
    service = Service(
        control=control,
        keyring=keyring,
        aside=Aside(),
        nudge=clock.nudge if clock is not None else hints.due,
        most_decompressed=settings.max_decompressed_bytes,
        heartbeat=settings.heartbeat_seconds,
        stream_life=settings.stream_seconds,
    )
    limiter = Limiter(
        Rates(
            read=settings.read_requests_per_minute,
            evidence=settings.evidence_requests_per_minute,
            api=settings.api_requests_per_minute,
        )
    )

    async def provided() -> Service:
        return service

    worker = settings.role == "worker"
    app = Litestar(
        probes(settings.open_metrics) if worker else routes(settings.open_metrics),
        dependencies={"service": Provide(provided), "caller": Provide(caller_of)},
        exception_handlers=HANDLERS,
        lifespan=[lambda _: running(service, Engine(clock, hints), settings)],
        logging_config=None,
        middleware=[AccessLog(), Gatekeeper(keyring, limiter)],
        openapi_config=None if worker else openapi(),
        request_class=StrictRequest,
        request_max_body_size=settings.max_body_bytes,
    )
    app.state.hub, app.state.aside = control.hub, service.aside
    return app


@contextlib.asynccontextmanager
async def running(service: Service, engine: Engine, settings: Settings) -> AsyncIterator[None]:
    """From an opened, migrated database to a closed one; whatever fails in between, nothing stays open."""
    control = service.control
    with alone(control.database):
        following: asyncio.Task[None] | None = None
        try:
            await prepare(control, settings)
            following = asyncio.create_task(follow(control.hub), name="rollout-follow")
            await engine.start()
            yield
        finally:
            try:
                await control.hub.close()
                await engine.stop()
                if following is not None:
                    following.cancel()
                    await asyncio.gather(following, return_exceptions=True)
            finally:
                await service.aside.close()
                await control.database.close()


@contextlib.contextmanager
def alone(database: Database) -> Iterator[None]:
    """Hold a lock beside an SQLite file; the system lets go of it whenever the process ends.

    Raises:
        InUse: another process holds it.
    """
    path = database.url.partition(":///")[2].partition("?")[0]
    if not database.is_sqlite or not path or path.startswith((":memory:", "file:")):
        yield
        return
    try:
        lock = Path(f"{path}.lock").open("w")  # noqa: SIM115 (closed below; an error of `yield` is none of this)
    except OSError as error:
        raise Unreachable(f"{path} cannot be opened: {error.strerror}; check ROLLOUT_DATABASE_URL") from error
    with lock as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUse(
                f"another process serves {path}: SQLite takes one at a time. Stop that one, or give this one a "
                "database of its own or PostgreSQL (ROLLOUT_DATABASE_URL)"
            ) from None
        yield


async def prepare(control: Control, settings: Settings) -> None:
    """Migrate the database, see to the first key, and read what is served.

    Raises:
        Unreachable: there is no database, or it was lost meanwhile.
    """
    await reach(control.database)
    preset = settings.admin_key
    try:
        await migrate(control.database)
        await first_key(control, preset.get_secret_value() if preset is not None else None)
        await control.hub.refresh()
    except Exception as error:
        if passing(error):
            raise Unreachable("the database was lost while this process started; start it again") from error
        raise


async def reach(database: Database) -> None:
    """Raise Unreachable, with what the driver says, unless the database answers."""
    try:
        await database.ping()
    except Exception as error:
        cause = str(error.__cause__ or error).strip().splitlines()
        said = cause[-1].strip() if cause else type(error).__name__
        raise Unreachable(f"the database cannot be reached: {said}; check ROLLOUT_DATABASE_URL") from error


async def first_key(control: Control, preset: str | None) -> None:
    """See to it that somebody can get in: the preset admin key, or on the first start a new one, printed this once."""
    if preset is not None:
        await _add_admin(control, keys.digest(preset)[:12], preset)
        return
    secret = f"rl_first_{secrets.token_urlsafe(32)}"
    async with control.database.read() as session:
        if await keys.count(session):
            return
    if await _add_admin(control, "first", secret):
        print(f"Admin key, shown this once: {secret}", flush=True)


async def _add_admin(control: Control, identifier: str, secret: str) -> bool:
    """Add an admin key unless one was ever made under this id; whether it was added."""
    now = control.now()
    key = Key(id=identifier, name="admin", scopes=("admin",), environment=None, created_at=now)
    try:
        async with control.database.write() as session:
            if any(known.id == identifier for known in await keys.every(session)):
                return False
            await make(session, key, secret, "service")
    except Duplicate:  # another process starts for the first time at this very moment
        return False
    return True


async def follow(hub: Hub) -> None:
    """Keep following the database, through whatever happens to it."""
    failing = False
    while True:
        await asyncio.sleep(FOLLOW_SECONDS)
        try:
            await hub.refresh()
        except Exception as error:
            if not failing:
                _log.warning("rulesets cannot be followed", exception=places(error))
            failing = True
        else:
            if failing:
                _log.info("rulesets are followed again")
            failing = False
