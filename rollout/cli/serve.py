"""`rollout serve`: one process, which ends cleanly and soon even while streams are open."""

import asyncio
import errno
import os
import signal
import socket
from types import FrameType
from typing import Any

import structlog
import uvicorn
from litestar import Litestar

from rollout import telemetry
from rollout.app import create_app
from rollout.delivery.hub import Hub
from rollout.engine.aside import Aside
from rollout.errors import RolloutError
from rollout.settings import Settings

GRACE_SECONDS = 5
"""How long requests in flight may take to end after a signal; streams end by themselves."""
_log = structlog.get_logger("rollout.serve")


class NoAddress(RolloutError):
    """The address cannot be listened on; choose another with --host and --port, or ROLLOUT_HOST and ROLLOUT_PORT."""


class Server(uvicorn.Server):
    """Uvicorn, but a signal ends streams and the work aside before the server begins to wait for them.

    Unlike uvicorn it does not raise the signal again afterwards: an asked-for end is a success.
    """

    def __init__(self, config: uvicorn.Config, hub: Hub, aside: Aside) -> None:
        super().__init__(config)
        self._hub, self._aside = hub, aside
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Task[None] | None = None

    async def startup(self, sockets: Any = None) -> None:
        """Listen, and say where."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        for server in self.servers:
            for each in server.sockets:
                host, port = each.getsockname()[:2]
                _log.info("listening", url=f"http://{f'[{host}]' if ':' in host else host}:{port}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End: first the streams, then everything else. A second interrupt does not wait."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end_streams)

    def _end_streams(self) -> None:
        if self._closing is not None:
            return
        _log.info("stopping")
        self._closing = asyncio.ensure_future(self._close())

    async def _close(self) -> None:
        await self._hub.close()
        await self._aside.close()


def server_of(app: Litestar, settings: Settings) -> Server:
    """A server for the application; its lifespan is entered by whoever runs it."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return Server(config, app.state.hub, app.state.aside)


async def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets that hold the port on every address of the host, and do not listen yet.

    Raises:
        NoAddress: the port is in use, or the host is none of this machine.
    """
    try:
        held = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port, start_serving=False)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise NoAddress(f"port {port} is in use; choose another with --port or ROLLOUT_PORT") from error
        why = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise NoAddress(
            f"cannot listen on {host}, port {port} ({why}); choose another with --host and --port, or ROLLOUT_HOST and "
            "ROLLOUT_PORT"
        ) from error
    sockets = [each.dup() for each in held.sockets]
    held.close()
    return sockets


async def serve(settings: Settings) -> None:
    """Run until a signal.

    Raises:
        RolloutError: the service cannot start; the message says what to do.
    """
    telemetry.configure(settings.log_level)
    app = create_app(settings)
    refusals: list[BaseException] = []
    sockets = await bind(settings.host, settings.port)  # before the first key is made and shown for nothing
    try:
        async with app.lifespan():
            await server_of(app, settings).serve(sockets)
    except* RolloutError as several:  # the lifespan runs in a task group, which wraps what it raises
        refusals.extend(several.exceptions)
    finally:
        for each in sockets:
            each.close()
    while refusals:
        refusal = refusals.pop()
        if not isinstance(refusal, BaseExceptionGroup):
            raise refusal
        refusals.extend(refusal.exceptions)
