"""What arrives of 1,000 evaluations when a process ends, and what a forked child does unasked, with a real socket."""

import os
import signal
import subprocess
import sys
import textwrap
import time

from benches._sdk.rows import ROOT, Row
from clients.python.tests.service import KEY, Service, document, eventually

EVALUATIONS = 1_000
_BEGIN = f"""
import os, sys, time
from rollout_client import Client, Context, Options
client = Client(sys.argv[1], sys.argv[2], environment="production", options=Options(flush_interval=60.0))
client.start()
assert client.wait_ready(5)
for each in range({EVALUATIONS}):
    client.evaluate("support-answer", Context(f"user-{{each}}"))
"""
_ENDS = {
    "a plain exit": "",
    "SIGTERM": "print('ready', flush=True)\ntime.sleep(30)",
    "close()": "client.close()\nos._exit(0)",
}
_FORK = """
import os, sys, time
from rollout_client import Client, Context, Options
client = Client(sys.argv[1], sys.argv[2], environment="production", options=Options(flush_interval=0.2))
client.start()
assert client.wait_ready(5)
if os.fork() == 0:
    user = Context("user-1")
    print("child", client.evaluate("support-answer", user).variant, flush=True)
    while client.evaluate("support-answer", user).revision != 2:
        time.sleep(0.005)
    print("seen", flush=True)
    time.sleep(2.0)
    os._exit(0)
os.wait()
os._exit(0)
"""


def rows(quick: bool) -> list[Row]:
    """The rows."""
    made = []
    for name, end in _ENDS.items():
        service = Service()
        try:
            made.append(
                Row(f"1,000 evaluations, then {name}: arrived", _arrived(service, end), "", 1000.0, at_least=True)
            )
        finally:
            service.down()
    return [*made, *_forked()]


def _arrived(service: Service, end: str) -> float:
    process = _started(_BEGIN + end, service)
    if "ready" in end and process.stdout is not None:
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    return float(sum(service.counted("exposures").values()))


def _started(script: str, service: Service) -> "subprocess.Popen[str]":
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script), service.url, KEY]
    return subprocess.Popen(command, cwd=ROOT, env=dict(os.environ), stdout=subprocess.PIPE, text=True)


def _forked() -> list[Row]:
    service = Service()
    try:
        process = _started(_FORK, service)
        assert process.stdout is not None
        said = process.stdout.readline().split()
        time.sleep(0.5)
        began = time.perf_counter()
        service.serve(document(2))
        seen = process.stdout.readline().strip() == "seen"
        took = time.perf_counter() - began
        arrived = bool(eventually(lambda: sum(service.counted("exposures").values()) > 0))
        process.communicate(timeout=30)
    except AssertionError:
        return [Row("after os.fork: the child answers, sees an update and its events arrive", None, "s", 1.0)]
    finally:
        service.down()
    answered = said == ["child", "v8"]
    name = "after os.fork: the child answers, its events arrive, and it sees an update after"
    return [Row(name, took, "s", 1.0, also=answered and seen and arrived)]
