"""One app process: `python -m rollout.demo.app`, started by `rollout.demo.apps`.

It reads its order, waits for `go`, answers its share of the traffic and reports on standard output. It ends when its
standard input does, so it never outlives whoever started it.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable

import msgspec

from rollout.demo.assistant import Reply, reply_to
from rollout.demo.data import questions
from rollout.demo.reports import Exchange, Flush, Order, Progress, Ready, Report, Settled, Unsettled
from rollout.demo.traffic import Request, requests
from rollout_client import Client, Evaluation

READY_TIMEOUT = 20.0
REPORT_SECONDS = 0.25
CLOSE_TIMEOUT = 2.0

_encoder = msgspec.json.Encoder()


class FlushTimes(logging.Handler):
    """When the client's batches were handed to the network and acknowledged, as its HTTP library logs it.

    The client sends one batch at a time, and batches are all that it posts.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sent = 0.0
        self._done: list[Flush] = []
        for name, level in {"httpcore.http11": logging.DEBUG, "httpx": logging.INFO}.items():
            logger = logging.getLogger(name)
            logger.setLevel(level)
            logger.propagate = False
            logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Take the moment of a line about a batch."""
        said = record.getMessage()
        if said.startswith("send_request_headers.started") and "POST" in said:
            self._sent = record.created
        elif said.startswith("HTTP Request: POST") and " 200 " in said:
            self._done.append(Flush(self._sent, record.created))

    def take(self) -> tuple[Flush, ...]:
        """Those acknowledged since the last take."""
        done, self._done = self._done, []
        return tuple(done)


class Watch:
    """Notices, by what users really get, when a rollout has ended for this process."""

    def __init__(self, tell: Callable[[Report], None]) -> None:
        self._tell = tell
        self._running: set[str] = set()
        self._settled: dict[str, str | None] = {}

    def see(self, got: Evaluation) -> None:
        """Look at one answer that a user got."""
        flag = got.flag
        if flag in self._settled:
            if got.variant != self._settled[flag]:
                self._tell(Unsettled(flag=flag, variant=got.variant, revision=got.revision))
        elif got.rollout is not None:
            self._running.add(flag)
        elif flag in self._running:
            self._settled[flag] = got.variant
            self._tell(Settled(flag=flag, variant=got.variant, revision=got.revision, at=time.time()))


class App:
    """Answers requests as they fall due until it is told to stop."""

    def __init__(self, order: Order, client: Client, stop: threading.Event) -> None:
        self._order, self._client, self._stop = order, client, stop
        self._flushes = FlushTimes()
        self._watch = Watch(tell)
        self._answered = 0
        self._exchange: Exchange | None = None

    def run(self) -> None:
        """Serve from now on."""
        order = self._order
        begun = time.monotonic()
        report_at = begun + REPORT_SECONDS
        for request in requests(order.part, order.parts, order.speed):
            now = time.monotonic()
            due = begun + request.due
            if (due > now and self._stop.wait(due - now)) or self._stop.is_set():
                return
            for flag in order.flags:
                reply = reply_to(request, self._client, flag)
                self._watch.see(reply.evaluation)
                if reply.evaluation.arm == "candidate":
                    self._exchange = shown(request, reply)
            self._answered += 1
            if now >= report_at:
                self._report(max(0.0, now - due))
                report_at = now + REPORT_SECONDS

    def _report(self, behind: float) -> None:
        lost = sum(count for what, count in self._client.status().dropped.items() if what != "unused")
        tell(
            Progress(
                requests=self._answered, behind=behind, flushes=self._flushes.take(), lost=lost, exchange=self._exchange
            )
        )
        self._answered, self._exchange = 0, None


def shown(request: Request, reply: Reply) -> Exchange:
    """A question and its answer, short enough to be shown."""
    answer = reply.answer.text.strip().rsplit("\n", 1)[-1].removeprefix("A: ")
    return Exchange(
        flag=reply.evaluation.flag,
        user=request.user,
        model=reply.model,
        question=questions()[request.question].text[:200],
        answer=answer[-60:],
        correct=reply.answer.correct,
    )


def stop_at_end_of_input(stop: threading.Event) -> None:
    """Whoever started this process closes its input when it is to end, or has ended itself."""
    sys.stdin.buffer.read()
    stop.set()


def tell(report: Report) -> None:
    """Say one line."""
    sys.stdout.buffer.write(_encoder.encode(report) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Run one app process until its standard input ends."""
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    stop = threading.Event()
    client = Client(order.url, order.key, environment=order.environment)
    client.start()
    questions()
    if not client.wait_ready(READY_TIMEOUT):
        sys.exit(f"no ruleset within {READY_TIMEOUT:.0f} s: {client.status().last_error}")
    tell(Ready())
    try:
        if sys.stdin.buffer.readline():
            threading.Thread(target=stop_at_end_of_input, args=(stop,), daemon=True).start()
            App(order, client, stop).run()
    finally:
        client.close(CLOSE_TIMEOUT)


if __name__ == "__main__":
    main()
