"""A small real service on loopback that speaks the wire, with the faults of real ones."""

from __future__ import annotations

import gzip
import json
import queue
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from rollout_client import Options
from rollout_client.evaluation.evidence import Batch

KEY = "sdk-key"


def document(revision: int = 1, threshold: int = 100_000, **changes: Any) -> dict[str, Any]:
    """A ruleset with one rollout, whose candidate owns [0, threshold)."""
    rule = {
        "kind": "rollout",
        "rollout": "ro_1",
        "attempt": "at_1",
        "baseline": "v7",
        "candidate": "v8",
        "threshold": threshold,
        "lease_ms": 900_000,
        "metrics": ["error_rate", "fallback_rate", "thumbs_down"],
    }
    flag = {
        "variants": {"v7": "small", "v8": "large"},
        "default_variant": "v7",
        "salt": "support-answer",
        "rules": [rule | changes],
    }
    proportion = {"kind": "proportion"}
    return {
        "schema": 1,
        "environment": "production",
        "revision": revision,
        "flags": {"support-answer": flag},
        "metrics": {"error_rate": proportion, "fallback_rate": proportion, "thumbs_down": proportion},
    }


class Service:
    """What the tests hold: set what is served, break things, read what arrived."""

    def __init__(self) -> None:
        self.body: bytes | None = json.dumps(document()).encode()
        self.revision = 1
        self.edition = ""
        self.engine_age: int | None = 0
        self.refuses_stream = False
        self.hangs = threading.Event()
        self.faults: deque[int | str] = deque()
        self.batches: dict[str, Batch] = {}
        self.posts: list[tuple[str, int | str]] = []
        self.asked_for: set[str] = set()
        self.requests: Counter[str] = Counter()
        self.seen_headers: list[tuple[str, dict[str, str]]] = []
        self.streams: list[queue.Queue[bytes | None]] = []
        self._port = 0
        self.up()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def tag(self) -> str:
        return f"{self.revision}.{self.edition}" if self.edition else str(self.revision)

    def up(self) -> None:
        handler = type("Bound", (_Handler,), {"service": self})
        self._server = _Server(("127.0.0.1", self._port), handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.drop_streams()
        self._server.cut()

    def serve(self, ruleset: dict[str, Any], announce: bool = True) -> None:
        self.body, self.revision = json.dumps(ruleset).encode(), ruleset["revision"]
        self.edition = ruleset.get("edition", "")
        if announce:
            self.push("ruleset", self.body, self.tag)

    def push(self, event: str, data: bytes, identity: int | str | None = None) -> None:
        head = b"" if identity is None else f"id: {identity}\n".encode()
        self.push_raw(head + f"event: {event}\n".encode() + b"data: " + data + b"\n\n")

    def push_raw(self, raw: bytes) -> None:
        for stream in list(self.streams):
            stream.put(raw)

    def heartbeat(self) -> bytes:
        said = {"revision": self.revision, "edition": self.edition, "engine_age_ms": self.engine_age}
        data = json.dumps(said).encode()
        return b"event: heartbeat\ndata: " + data + b"\n\n"

    def drop_streams(self) -> None:
        for stream in list(self.streams):
            stream.put(None)

    def fault_of(self, body: bytes) -> int | str:
        return self.faults.popleft() if self.faults else 200

    def counted(self, what: str) -> dict[tuple[str, str], int]:
        """Sums over all accepted batches: (attempt, arm) -> exposures, first_exposures or started."""
        sums: Counter[tuple[str, str]] = Counter()
        for batch in list(self.batches.values()):
            for attempt, arms in batch.attempts.items():
                for arm, increment in arms.items():
                    for slot in increment.slots.values():
                        sums[attempt, arm] += sum(getattr(slot, what).values())
        return {key: number for key, number in sums.items() if number}

    def measured(self, metric: str) -> dict[tuple[str, str], list[float]]:
        """Sums over all accepted batches: (attempt, arm) -> the numbers of one metric."""
        sums: dict[tuple[str, str], list[float]] = {}
        for batch in list(self.batches.values()):
            for attempt, arms in batch.attempts.items():
                for arm, increment in arms.items():
                    for slot in increment.slots.values():
                        for numbers in slot.metrics[metric].cells.values() if metric in slot.metrics else ():
                            before = sums.get((attempt, arm), [0] * len(numbers))
                            sums[attempt, arm] = [a + b for a, b in zip(before, numbers, strict=True)]
        return sums


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, *arguments: Any) -> None:
        self.open: set[socket.socket] = set()
        super().__init__(*arguments)

    def get_request(self) -> Any:
        found = super().get_request()
        self.open.add(found[0])
        return found

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        for held in list(self.open):
            try:
                held.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was cut is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: Service

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        service, path = self.service, self.path.partition("?")[0]
        service.requests[path] += 1
        service.seen_headers.append((path, dict(self.headers)))
        service.asked_for.add(self.path.partition("?")[2])
        while service.hangs.is_set():
            time.sleep(0.02)
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            self._answer(401, b"{}")
        elif path == "/sdk/v1/ruleset":
            self._ruleset()
        elif path == "/sdk/v1/stream" and not service.refuses_stream:
            self._stream()
        else:
            self._answer(404, b"{}")

    def do_POST(self) -> None:
        service = self.service
        body = self.rfile.read(int(self.headers["Content-Length"]))
        while service.hangs.is_set():
            time.sleep(0.02)
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        batch = msgspec.json.decode(body, type=Batch)
        fault = service.fault_of(body)
        service.posts.append((batch.batch_id, fault))
        if fault == "cut":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault == "commit then cut":
            service.batches[batch.batch_id] = batch
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault == "portal":
            self._answer(200, b"<html>please log in</html>")
            return
        if fault != 200:
            self._answer(int(fault), b'{"title": "no"}', {"Retry-After": "0"} if fault == 429 else {})
            return
        service.batches[batch.batch_id] = batch
        self._answer(200, json.dumps({"batch_id": batch.batch_id, "accepted": 1, "orphaned": 0}).encode())

    def _ruleset(self) -> None:
        service = self.service
        headers = {} if service.engine_age is None else {"Rollout-Engine-Age": str(service.engine_age)}
        headers["ETag"] = f'"{service.tag}"'
        if self.headers.get("If-None-Match") == f'"{service.tag}"':
            self._answer(304, b"", headers)
        else:
            self._answer(200, service.body or b"", headers)

    def _stream(self) -> None:
        service = self.service
        events: queue.Queue[bytes | None] = queue.Queue()
        service.streams.append(events)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            self.wfile.write(service.heartbeat())
            if self.headers.get("Last-Event-ID") != service.tag:
                data = (service.body or b"").replace(b"\n", b" ")
                self.wfile.write(f"id: {service.tag}\nevent: ruleset\ndata: ".encode() + data + b"\n\n")
            while (event := events.get()) is not None:
                self.wfile.write(event)
        except OSError:
            return
        finally:
            service.streams.remove(events)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


FAST = Options(
    flush_interval=0.05,
    poll_interval=0.1,
    connect_timeout=1.0,
    answer_timeout=1.0,
    stream_silence=2.0,
    backoff_first=0.02,
    backoff_longest=0.1,
    exit_timeout=1.0,
)


def eventually(check: Callable[[], Any], within: float = 5.0) -> Any:
    """Wait for something to become true, and fail when it does not."""
    until = time.monotonic() + within
    while not (found := check()):
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.005)
    return found
