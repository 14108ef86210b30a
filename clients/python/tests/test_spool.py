"""What cannot be sent before the end is on disk, and the next process sends it with the same ids."""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from clients.python.tests.service import FAST, Service, eventually
from clients.python.tests.test_processes import in_child
from rollout_client import Client, Context
from rollout_client.report import Reporter
from rollout_client.spool import OLDEST, Spool, Spooled

FLAG, ARM = "support-answer", ("at_1", "candidate")
Connect = Callable[..., Client]


def spooling(folder: Path, **changes: object):
    return msgspec.structs.replace(FAST, flush_interval=0.05, spool_dir=folder, **changes)


def leave_behind(service: Service, connect: Connect, folder: Path, number: int = 10) -> Client:
    """End a client whose service is away, with evidence of so many exposures."""
    client = connect(options=spooling(folder, exit_timeout=0.2))
    assert client.wait_ready(5)
    service.down()
    for each in range(number):
        client.evaluate(FLAG, Context(f"user-{each}"))
    client.close(0.2)
    return client


def test_the_next_process_sends_what_the_last_one_could_not(service: Service, connect: Connect, tmp_path: Path) -> None:
    first = leave_behind(service, connect, tmp_path)
    assert first.status().dropped == {}
    [file] = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"user-" not in file.read_bytes()
    service.up()
    connect(options=spooling(tmp_path))
    eventually(lambda: service.counted("exposures") == {ARM: 10})
    eventually(lambda: not list(tmp_path.iterdir()))


def test_a_batch_that_had_arrived_keeps_its_id(service: Service, connect: Connect, tmp_path: Path) -> None:
    client = connect(options=spooling(tmp_path))
    assert client.wait_ready(5)
    service.faults.extend(["commit then cut"] * 500)
    client.evaluate(FLAG, Context("user-1"))
    eventually(lambda: service.posts)
    client.close(0.1)
    sent = len(service.batches)
    service.faults.clear()
    connect(options=spooling(tmp_path))
    eventually(lambda: not list(tmp_path.iterdir()))
    assert len(service.batches) == sent
    assert service.counted("exposures") == {ARM: 1}


def test_a_process_that_dies_while_it_sends_leaves_the_file_to_another(
    service: Service, connect: Connect, tmp_path: Path
) -> None:
    leave_behind(service, connect, tmp_path)
    service.up()
    service.faults.extend([503] * 500)
    second = connect(options=spooling(tmp_path))
    eventually(lambda: any(fault == 503 for _, fault in service.posts))
    posts = {identity for identity, _ in service.posts}
    third = connect(options=spooling(tmp_path))
    assert third.wait_ready(5)
    time.sleep(0.2)
    assert {identity for identity, _ in service.posts} == posts, "one process sends a file at a time"
    second.close(0.0)
    third.close(0.0)
    assert len(list(tmp_path.iterdir())) == 1
    service.faults.clear()
    connect(options=spooling(tmp_path))
    eventually(lambda: service.counted("exposures") == {ARM: 10})
    eventually(lambda: not list(tmp_path.iterdir()))


@pytest.mark.parametrize("damage", [b"", b"\xff" * 40, b"rampline-evidence 1 00\n[]"])
def test_a_damaged_file_is_reported_and_removed(
    service: Service, connect: Connect, tmp_path: Path, damage: bytes
) -> None:
    leave_behind(service, connect, tmp_path)
    [file] = tmp_path.iterdir()
    file.write_bytes(damage)
    service.up()
    client = connect(options=spooling(tmp_path))
    eventually(lambda: not list(tmp_path.iterdir()))
    assert client.wait_ready(5)
    assert "is lost" in (client.status().last_error or "")


def test_a_folder_that_cannot_be_written_costs_the_batches_and_no_more(
    service: Service, connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    client = leave_behind(service, connect, tmp_path / "file" / "folder")
    assert client.status().dropped["exposures"] == 10


def test_what_does_not_fit_is_dropped_and_counted(service: Service, connect: Connect, tmp_path: Path) -> None:
    client = connect(options=spooling(tmp_path, spool_bytes=100))
    assert client.wait_ready(5)
    service.down()
    client.evaluate(FLAG, Context("user-1"))
    client.close(0.1)
    assert client.status().dropped["exposures"] == 1
    assert not list(tmp_path.iterdir())


BATCHES = [Spooled(f"b{number}", b"{}", None, 3, 4) for number in range(3)]


def spool_of(folder: Path, identity: str = "here", limit: int = 1_000_000) -> Spool:
    return Spool(folder, identity, limit, Reporter())


def test_a_batch_that_waited_too_long_is_counted_as_lost(tmp_path: Path) -> None:
    lost: list[Spooled] = []
    assert spool_of(tmp_path).keep(BATCHES) == {"b0", "b1", "b2"}
    assert spool_of(tmp_path).take(9, time.time() + OLDEST + 60, lost.append) == []
    assert lost == BATCHES
    assert not list(tmp_path.iterdir())


def test_a_file_goes_when_its_last_batch_is_settled(tmp_path: Path) -> None:
    spool_of(tmp_path).keep(BATCHES)
    spool = spool_of(tmp_path)
    assert spool.take(9, time.time(), lambda _: None) == BATCHES
    for batch in BATCHES:
        assert len(list(tmp_path.iterdir())) == 1
        spool.settle(batch.batch_id)
    assert not list(tmp_path.iterdir())


def test_what_is_on_disk_already_is_not_written_again(tmp_path: Path) -> None:
    spool_of(tmp_path).keep(BATCHES[:2])
    spool = spool_of(tmp_path)
    spool.take(9, time.time(), lambda _: None)
    assert spool.keep(BATCHES) == {"b0", "b1", "b2"}
    spool.leave()
    assert [len(spool_of(tmp_path).take(1, time.time(), lambda _: None)) for _ in range(1)] == [2]
    assert len(list(tmp_path.iterdir())) == 2


def test_files_of_another_service_are_left_alone(tmp_path: Path) -> None:
    spool_of(tmp_path, "there").keep(BATCHES)
    assert spool_of(tmp_path).take(9, time.time(), lambda _: None) == []
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_leaves_its_parents_files_to_the_parent(tmp_path: Path) -> None:
    spool_of(tmp_path).keep(BATCHES)
    spool = spool_of(tmp_path)
    spool.take(9, time.time(), lambda _: None)

    def work() -> int:
        spool.leave()
        return len(spool_of(tmp_path).take(9, time.time(), lambda _: None))

    assert in_child(work) == 0
    assert len(list(tmp_path.iterdir())) == 1
