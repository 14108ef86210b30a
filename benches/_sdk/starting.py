"""A server that hangs or refuses at the start: what the application waits for, and what it is answered."""

import socket
import time
from statistics import median

from benches._sdk.rows import Row
from rollout_client import Client, Context

REFUSES = 9


def rows(quick: bool) -> list[Row]:
    """The rows."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ports = {"hangs": silent.getsockname()[1], "refuses": REFUSES}
        made = []
        for name, port in ports.items():
            blocked, first, right = zip(*(_start(port) for _ in range(3 if quick else 9)), strict=True)
            made.append(Row(f"server {name} at the start: start() blocks", median(blocked), "ms", 1.0, 0.0))
            made.append(Row(f"server {name} at the start: first answer, the right default", median(first), "ms", 1.0,
                            also=all(right)))  # fmt: skip
        return made


def _start(port: int) -> tuple[float, float, bool]:
    began = time.perf_counter()
    client = Client(f"http://127.0.0.1:{port}", "none", environment="bench")
    made = time.perf_counter()
    client.start()
    started = time.perf_counter()
    answer = client.evaluate("flag-1", Context("user-1"), "mine")
    answered = time.perf_counter()
    right = (answer.value, answer.error) == ("mine", "PROVIDER_NOT_READY")
    client.close(0.0)
    return (started - made) * 1e3, (answered - started) * 1e3, right and made > began
