"""Forks and ends of processes: what a child does unasked, and what arrives of what was counted last."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from clients.python.tests.service import KEY, Service, document, eventually
from clients.python.tests.test_processes import FLAG, SOURCE, in_child
from rollout_client import Client, Context
from rollout_client.background import Background

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
ARM = ("at_1", "candidate")
Connect = Callable[..., Client]

BEGIN = """
    import os, signal, sys, threading, time
    from rollout_client import Client, Context, Options

    def begin(**options):
        client = Client(sys.argv[1], sys.argv[2], environment="production", options=Options(**options))
        client.start()
        return client

    def count(client, number=1000):
        assert client.wait_ready(5)
        for each in range(number):
            client.evaluate("support-answer", Context(f"user-{each}"))
"""


def begun(script: str, service: Service, *arguments: str) -> subprocess.Popen[str]:
    program = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c"]
    program.append(textwrap.dedent(BEGIN) + textwrap.dedent(script))
    return subprocess.Popen(
        [*program, service.url, KEY, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": SOURCE},
    )  # fmt: skip


def ended(process: subprocess.Popen[str], within: float = 15) -> tuple[int, str, str]:
    said, complained = process.communicate(timeout=within)
    return process.returncode, said, complained


SERVING = """
    client = begin(flush_interval=60.0)
    count(client)
    print("ready", flush=True)
"""


def test_sigterm_sends_what_was_counted_and_ends_the_process_as_ever(service: Service) -> None:
    process = begun(SERVING + "    time.sleep(20)", service)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert ended(process) == (-signal.SIGTERM, "", "")
    assert service.counted("exposures") == {ARM: 1000}


def test_sigterm_may_come_while_it_counts(service: Service) -> None:
    script = SERVING + '    while True: client.evaluate("support-answer", Context("user-1"))'
    process = begun(script, service)
    assert process.stdout is not None
    process.stdout.readline()
    process.terminate()
    began = time.monotonic()
    assert ended(process) == (-signal.SIGTERM, "", "")
    assert time.monotonic() - began < 1.5
    assert service.counted("exposures")[ARM] >= 1000


def test_a_second_sigterm_does_not_wait_and_the_first_waits_for_no_dead_service(service: Service) -> None:
    for signals, least, most in ((1, 0.4, 2.0), (2, 0.0, 0.4)):
        service.hangs.clear()
        process = begun("client = begin(flush_interval=60.0, exit_timeout=0.5)\n" + textwrap.dedent("""
            count(client)
            print("ready", flush=True)
            time.sleep(20)
        """), service)  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        service.hangs.set()
        began = time.monotonic()
        for _ in range(signals):
            process.terminate()
            time.sleep(0.1)
        assert ended(process)[0] == -signal.SIGTERM
        assert least <= time.monotonic() - began < most


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_handler_of_an_application_stays(service: Service, when: str) -> None:
    own = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
    before, after = (own, "") if when == "before" else ("", own)
    script = before + "client = begin(flush_interval=60.0)\n" + after + "count(client)\nsignal.raise_signal(15)\n"
    assert ended(begun(script, service)) == (7, "", "")
    assert service.counted("exposures") == {ARM: 1000}


def test_it_handles_sigterm_only_where_it_may(service: Service) -> None:
    script = """
        begin(handle_sigterm=False)
        print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
        other = threading.Thread(target=begin)
        other.start()
        other.join()
        print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        begin()
        print(signal.getsignal(signal.SIGTERM) is signal.SIG_IGN)
    """
    assert ended(begun(script, service)) == (0, "True\nTrue\nTrue\n", "")


def test_a_child_asked_nothing_follows_and_its_events_arrive(service: Service, connect: Connect) -> None:
    client = connect()
    eventually(lambda: len(service.streams) == 1)

    def follow() -> dict[str, Any]:
        threads = threading.active_count()
        time.sleep(0.6)
        current = client._served.current
        client.evaluate(FLAG, Context("user-1"))
        time.sleep(0.3)  # no close: what counts is what the child does by itself
        return {"threads": threads, "revision": None if current is None else current.compiled.revision}

    def change() -> None:
        eventually(lambda: len(service.streams) == 2, within=1.0)
        service.serve(document(revision=2))

    changer = threading.Thread(target=change)
    changer.start()
    said = in_child(follow)
    changer.join()
    assert said == {"threads": 2, "revision": 2}
    assert service.counted("exposures") == {ARM: 1}


def test_a_fork_waits_for_what_the_thread_has_begun(
    service: Service, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import that another thread was in the midst of when a process forked stays half done in the child."""
    begun, done = threading.Event(), threading.Event()

    def import_something(_: Background) -> None:
        begun.set()
        time.sleep(0.3)
        done.set()

    monkeypatch.setattr(Background, "_read_disk", import_something)
    client = connect()
    assert begun.wait(5)
    assert in_child(done.is_set)
    assert client.wait_ready(5)


def test_a_child_that_becomes_another_program_connects_to_nothing(service: Service) -> None:
    script = """
        import subprocess
        client = begin()
        assert client.wait_ready(5)
        while client.status().stream != "open": time.sleep(0.01)
        pid = os.fork()
        if pid == 0:
            os.closerange(3, 64)  # as daemons do, before anything of the client's is open
            os.execv(sys.executable, [sys.executable, "-c", "pass"])
        assert os.waitpid(pid, 0)[1] == 0
        subprocess.run([sys.executable, "-c", "pass"], preexec_fn=os.getpid, check=True)
        assert client.status().stream == "open"
    """
    assert ended(begun(script, service)) == (0, "", "")
    assert service.requests["/sdk/v1/stream"] == 1


def test_a_child_that_closes_what_it_inherited_works(service: Service, connect: Connect) -> None:
    client = connect()
    eventually(lambda: len(service.streams) == 1)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 2)
        os.closerange(3, 256)
        eventually(lambda: client.status().stream == "open")
        client.evaluate(FLAG, Context("user-1"))
        client.close()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as complaints:
        said = complaints.read()
    assert (os.waitpid(child, 0)[1], said) == (0, "")
    assert service.counted("exposures") == {ARM: 1}


def test_no_thread_is_left_after_a_close(service: Service, connect: Connect) -> None:
    before = set(threading.enumerate())
    client = connect()
    assert client.wait_ready(5)
    client.close()
    eventually(lambda: not [each for each in set(threading.enumerate()) - before if "rollout" in each.name])


@pytest.mark.parametrize("trouble", ["refuses", "hangs"])
def test_a_start_without_a_service_blocks_nobody(service: Service, connect: Connect, trouble: str) -> None:
    service.hangs.set()
    if trouble == "refuses":
        service.hangs.clear()
        service.down()
    answers = []
    for _ in range(5):  # another helper of this machine may have had the processor
        began = time.perf_counter()
        client = connect()
        started = time.perf_counter()
        answers.append(
            (started - began, client.evaluate(FLAG, Context("user-1"), "mine"), time.perf_counter() - started)
        )
        client.close(0.0)
    assert all((answer.value, answer.error) == ("mine", "PROVIDER_NOT_READY") for _, answer, _ in answers)
    assert min(blocked for blocked, _, _ in answers) < 0.01
    assert min(answered for _, _, answered in answers) < 0.001


def test_where_no_thread_can_be_started_it_answers_and_tries_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(service.url, KEY, environment="production", bootstrap=document(4, lease_ms=None))

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        client.start()
        assert client.evaluate(FLAG, Context("user-1")).variant == "v8"
        assert "thread" in (client.status().last_error or "")
    client.evaluate(FLAG, Context("user-1"))
    assert client.wait_ready(5)
    client.close()
