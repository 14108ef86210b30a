"""A process that watches a service: `python -m benches._sdk.watching clients|streams URL KEY`.

A line with a number opens so many more, and is answered when they are open. An empty line ends it: it prints, for each
that it opened, when it saw each change (seconds of the monotonic clock, which all processes of a machine share).

*clients* are whole ones, and a change is seen when `evaluate()` first answers with another variant; a thread asks them
all, again and again. *streams* are bare connections, and a change is seen when its event has arrived.
"""

import json
import os
import selectors
import socket
import sys
import threading
import time
from typing import Protocol

from clients.python.tests.service import eventually
from rollout_client import Client, Context

FLAG = "answer"
PAUSE = 0.0005
"""Seconds between two rounds of questions; a client that is never left alone would be held up by them."""
_CHANGES = (b"event: patch", b"event: ruleset")


class Watching(Protocol):
    """Either of the two."""

    seen: list[list[float]]

    def open(self, many: int) -> None:
        """Open so many more, and wait until they are current."""


class Clients:
    """Whole clients, each with its thread."""

    def __init__(self, url: str, key: str) -> None:
        self.seen: list[list[float]] = []
        self._url, self._key = url, key
        self._open: list[Client] = []
        threading.Thread(target=self._ask, daemon=True).start()

    def open(self, many: int) -> None:
        """Start them, each with its stream."""
        for _ in range(many):
            client = Client(self._url, self._key, environment="production")
            client.start()
            assert client.wait_ready(10)
            eventually(lambda client=client: client.status().stream == "open")
            self.seen.append([])
            self._open.append(client)

    def _ask(self) -> None:
        user, last = Context("user-1"), {}
        while True:
            for number, client in enumerate(self._open):
                variant = client.evaluate(FLAG, user).variant
                if last.setdefault(number, variant) != variant:
                    last[number] = variant
                    self.seen[number].append(time.monotonic())
            time.sleep(PAUSE)


class Streams:
    """Connections that read their events, and do nothing with them."""

    def __init__(self, url: str, key: str) -> None:
        self.seen: list[list[float]] = []
        host, _, port = url.removeprefix("http://").rpartition(":")
        self._address = host, int(port)
        self._asks = f"GET /sdk/v1/stream HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
        self._selector = selectors.DefaultSelector()
        self._unread: list[bytes] = []
        threading.Thread(target=self._read, daemon=True).start()

    def open(self, many: int) -> None:
        """Connect, and read the first ruleset."""
        for _ in range(many):
            connection = socket.create_connection(self._address)
            connection.sendall(self._asks)
            content = b""
            while _CHANGES[1] not in content or not content.endswith(b"\n\n\r\n"):
                content += connection.recv(65_536)
            self.seen.append([])
            self._unread.append(b"")
            self._selector.register(connection, selectors.EVENT_READ, len(self.seen) - 1)

    def _read(self) -> None:
        while True:
            for ready, _ in self._selector.select(0.1):
                number, connection = ready.data, ready.fileobj
                assert isinstance(connection, socket.socket)
                *events, self._unread[number] = (self._unread[number] + connection.recv(65_536)).split(b"\n\n")
                now = time.monotonic()
                self.seen[number] += [now for event in events if any(kind in event for kind in _CHANGES)]


def main() -> None:
    """Do as each line says."""
    kind, url, key = sys.argv[1:]
    watching: Watching = (Clients if kind == "clients" else Streams)(url, key)
    while line := sys.stdin.readline().strip():
        watching.open(int(line))
        print("open", flush=True)
    print(json.dumps(watching.seen), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
