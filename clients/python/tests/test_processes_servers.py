"""The servers that applications run in: no worker is told anything, all of them follow, and nothing counted is lost."""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from clients.python.tests.servers import environment, serving
from clients.python.tests.service import Service, document, eventually

pytestmark = pytest.mark.slow
ARM = ("at_1", "candidate")


def gunicorn(worker: str, *options: str) -> list[str]:
    pytest.importorskip("gunicorn")
    return ["gunicorn", "-b", "127.0.0.1:{port}", "-w", "2", "-k", worker, "--graceful-timeout", "3", *options, "app"]


@pytest.mark.parametrize("preload", [True, False])
@pytest.mark.parametrize("worker", ["sync", "gthread", "gevent"])
def test_the_workers_of_gunicorn(service: Service, tmp_path: Path, worker: str, preload: bool) -> None:
    if worker == "gevent":
        pytest.importorskip("gevent")
    options = (["--preload"] if preload else []) + (["--threads", "2"] if worker == "gthread" else [])
    with serving(service, tmp_path, gunicorn(worker, *options)) as server:
        follow_and_count(service, server, processes=3 if preload else 2)
        server.stop()
    log = (tmp_path / "server.log").read_text()
    assert "Traceback" not in log, log
    assert service.counted("exposures") == {ARM: 100}, log


def follow_and_count(service: Service, server, processes: int) -> None:
    eventually(lambda: len(service.streams) == processes, within=10)  # nobody has asked for anything yet
    service.serve(document(revision=2))
    began = time.monotonic()
    seen: dict[str, str] = {}
    while time.monotonic() < began + 3 and (len(seen) < 2 or set(seen.values()) != {"2"}):
        process, revision, _ = server.get().split(" ", 2)
        seen[process] = revision
        if time.monotonic() > began + 1:
            assert revision == "2"
    assert set(seen.values()) == {"2"}
    for number in range(100):
        server.get(f"/{number + 1}")
    assert service.counted("exposures") == {}  # every 60 s: what arrives, arrives at the end


UWSGI = ["uwsgi", "--http-socket", "127.0.0.1:{port}", "--wsgi-file", "app.py", "--need-app", "--die-on-term"]


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("master", [True, False])
def test_the_workers_of_uwsgi(service: Service, tmp_path: Path, master: bool, lazy: bool) -> None:
    pytest.importorskip("pyuwsgi")
    options = ["--enable-threads", *(["--lazy-apps"] if lazy else [])]
    options += ["--master", "--processes", "2"] if master else []
    with serving(service, tmp_path, [*UWSGI, *options]) as server:
        follow_and_count(service, server, processes=2 if master else 1)
        time.sleep(0.3)  # a worker that is still busy ends without asking Python
        server.stop(signal.SIGTERM if master else signal.SIGINT)
    log = (tmp_path / "server.log").read_text()
    assert "Traceback" not in log, log
    assert service.counted("exposures") == {ARM: 100}, log


def test_uwsgi_without_threads_is_told_what_it_lacks(service: Service, tmp_path: Path) -> None:
    pytest.importorskip("pyuwsgi")
    with serving(service, tmp_path, [*UWSGI, "--master"]) as server:
        eventually(lambda: "--enable-threads" in server.get())
    assert "--enable-threads" in (tmp_path / "server.log").read_text()


CELERY = """
    import os
    from celery import Celery

    app = Celery("tasks", broker="filesystem://")
    folders = {"data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control"}
    app.conf.update(broker_transport_options=folders, task_ignore_result=True, worker_hijack_root_logger=False)
    if "TEST_ASKS" not in os.environ:
        from rollout_client import Client, Context, Options

        options = Options(flush_interval=60.0)
        client = Client(os.environ["TEST_URL"], os.environ["TEST_KEY"], environment="production", options=options)
        client.start()


    @app.task(name="ask")
    def ask(number):
        client.wait_ready(5)
        client.evaluate("support-answer", Context(f"user-{number}"))
        print(f"asked-{number}")
"""


def test_the_prefork_workers_of_celery(service: Service, tmp_path: Path) -> None:
    pytest.importorskip("celery")
    (tmp_path / "tasks.py").write_text(textwrap.dedent(CELERY))
    (tmp_path / "queue").mkdir()
    told = environment(service)
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-P", "prefork", "-c", "2", "--without-mingle"]
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(command, cwd=tmp_path, env=told, stdout=output, stderr=output)
        try:
            eventually(lambda: len(service.streams) == 3, within=20)  # before any task
            asking = [sys.executable, "-c", "import tasks; [tasks.ask.delay(number) for number in range(1, 51)]"]
            subprocess.run(asking, cwd=tmp_path, env=told | {"TEST_ASKS": "1"}, check=True, timeout=20)
            eventually(lambda: log.read_text().count("asked-") == 50, within=20)
            assert service.counted("exposures") == {}
            worker.send_signal(signal.SIGTERM)
            worker.wait(20)
        finally:
            worker.kill()
    assert service.counted("exposures") == {ARM: 50}, log.read_text()


SPAWNING = """
    import multiprocessing, os, sys
    from rollout_client import Client, Context, Options

    client = Client(sys.argv[1], sys.argv[2], environment="production", options=Options(flush_interval=60.0))
    client.start()


    def ask(number):
        client.wait_ready(5)
        client.evaluate("support-answer", Context(f"user-{number}"))


    if __name__ == "__main__":
        context = multiprocessing.get_context(sys.argv[3])
        processes = [context.Process(target=ask, args=(number,)) for number in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        with context.Pool(2) as pool:
            pool.map(ask, range(10, 30))
            pool.close()
            pool.join()
        print(*(process.exitcode for process in processes))
"""


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_the_children_of_multiprocessing(service: Service, tmp_path: Path, method: str) -> None:
    (tmp_path / "asking.py").write_text(textwrap.dedent(SPAWNING))
    command = [sys.executable, "asking.py", service.url, "sdk-key", method]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(service), capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "0 0 0\n", done.stderr
    assert "Traceback" not in done.stderr
    assert service.counted("exposures") == {ARM: 23}, done.stderr


GREENLETS = """
    from gevent import monkey
    monkey.patch_all()
    import asyncio, gevent, logging, os, sys
    logging.getLogger("rollout_client").setLevel("ERROR")
    from rollout_client import Client, Context, Options

    def make():
        client = Client(sys.argv[1], sys.argv[2], environment="production", options=Options(flush_interval=60.0))
        client.start()
        assert client.wait_ready(5)
        return client

    clients = [make(), make()]  # two loops of their own, and one of the application's

    def ask(number):
        gevent.sleep(0.001)
        clients[number % 2].evaluate("support-answer", Context(f"user-{number}"))

    gevent.joinall([gevent.spawn(ask, number) for number in range(100)])
    asyncio.run(asyncio.sleep(0.01))
    assert clients[0].run("support-answer", Context("user-1"), lambda value: gevent.sleep(9), "late", 0.05) == "late"
    pid = os.fork()
    if pid == 0:
        ask(500)
        clients[0].close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    ticks = 0

    def tick():
        global ticks
        while True:
            ticks += 1
            gevent.sleep(0.001)

    ticking = gevent.spawn(tick)
    clients[0].close()
    clients[1].close()
    print(ticks > 0)
"""


def test_it_works_among_greenlets(service: Service) -> None:
    pytest.importorskip("gevent")
    command = [sys.executable, "-c", textwrap.dedent(GREENLETS), service.url, "sdk-key"]
    done = subprocess.run(command, env=environment(service), capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", ""), done.stderr
    assert service.counted("exposures") == {ARM: 102}
