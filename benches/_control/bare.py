"""The floor of telling clients: a bare asyncio server that sends one small event to each of its streams."""

import asyncio
import threading
import time

HELLO = b"event: ruleset\ndata: {}\n\n"
CHANGE = b"event: patch\ndata: {}\n\n"


class Bare:
    """A server in a thread of its own; whoever connects gets an event at once, and one at each `push`."""

    sdk_key = "none"

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._writers: list[asyncio.StreamWriter] = []
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def push(self) -> float:
        """Send one event to everybody; when that began."""
        began = time.monotonic()
        self._loop.call_soon_threadsafe(self._send)
        return began

    def close(self) -> None:
        """Let go of everything."""
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _serve(self) -> asyncio.Server:
        return await asyncio.start_server(self._greet, "127.0.0.1", 0)

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(HELLO))
        self._writers.append(writer)

    def _send(self) -> None:
        for writer in self._writers:
            writer.write(chunk(CHANGE))


def chunk(content: bytes) -> bytes:
    """One chunk of a response of unknown length."""
    return b"%x\r\n%b\r\n" % (len(content), content)
