"""What an update of 10,000 flags costs: decoding, compiling, swapping; and how long it stalls an evaluating thread."""

import gc
import json
import threading
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import msgspec

from benches._sdk.rows import Row
from benches._sdk.workload import document, flag_document, updated
from rollout_client import Client, Context
from rollout_client.evaluation import lines
from rollout_client.evaluation.ruleset import Patch, Ruleset
from rollout_client.native import pause

FLAGS = 10_000


class Watched:
    """A thread that evaluates all the time, and the longest time between two of its answers."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._done = False
        self.longest = 0.0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Watched":
        self._thread.start()
        time.sleep(0.05)
        self.longest = 0.0
        return self

    def __exit__(self, *_: object) -> None:
        self._done = True
        self._thread.join()

    def _run(self) -> None:
        user, last = Context("user-1", country="CH"), time.perf_counter()
        while not self._done:
            self._client.evaluate("flag-7", user)
            now = time.perf_counter()
            self.longest, last = max(self.longest, now - last), now


def whole(revision: int, *, rollouts: int = 0) -> bytes:
    """A ruleset of 10,000 flags as the service writes it, some in a rollout; each revision changes all of them."""
    made = document(FLAGS)
    made["revision"], made["edition"] = revision, f"e{revision}"
    for number, flag in enumerate(made["flags"].values()):
        made["flags"][f"flag-{number}"] = flag | {
            "rules": flag_document(number, rollout=number < rollouts, below=50_000 + revision)["rules"]
        }
    return lines.encode(msgspec.convert(made, Ruleset))


def patch(base: int) -> bytes:
    """A patch of one flag."""
    change = {"flag-7": flag_document(7, below=40_000 + base)}
    return json.dumps({"base": base, "base_edition": f"e{base}", "revision": base + 1, "edition": f"e{base + 1}",
                       "flags": change}).encode()  # fmt: skip


def apply(client: Client, content: bytes) -> None:
    """What the client does with a whole ruleset that arrives."""
    compiled = client._served.compile(lines.decode(content, pause))
    assert compiled is not None
    client._served.take(compiled, "service", 0, time.monotonic())
    client._changed()
    client._served.let_go()


def apply_patch(client: Client, content: bytes) -> None:
    """What it does with a patch."""
    compiled = client._served.patched(msgspec.json.decode(content, type=Patch))
    assert compiled is not None
    client._served.take(compiled, "service", None, 0.0)
    client._changed()
    client._served.let_go()


def rows(quick: bool) -> list[Row]:
    """The rows."""
    repeats = 3 if quick else 7
    client = Client("http://127.0.0.1:9", "none", environment="bench")
    contents = [whole(revision) for revision in range(2)]
    apply(client, contents[0])
    ours, floor, plain, stalls, changes, held = [], [], [], [], [], []
    for turn in range(repeats):
        content = contents[turn % 2]
        floor.append(timed(lambda content=content: msgspec.json.decode(content, type=Ruleset)))
        plain.append(timed(lambda content=content: updated(content)))
        ours.append(timed(lambda content=content: apply(client, content)))
        with Watched(client) as watched:
            apply(client, content)
        stalls.append(watched.longest)
    apply(client, contents[0])
    for base in range(repeats * 3):
        content = patch(base)
        if base % 3:
            changes.append(timed(lambda content=content: apply_patch(client, content)))
            continue
        with Watched(client) as watched:
            apply_patch(client, content)
        held.append(watched.longest)
    return [
        Row(
            "apply an update of 10,000 flags (decode, compile, swap), over interp's own",
            min(ours) / min(plain),
            "x",
            1.5,
            min(floor) / min(plain),
            {"interp (ms)": min(plain) * 1e3, "ours (ms)": min(ours) * 1e3},
        ),
        Row("the same, over one call that decodes and checks nothing", min(ours) / min(floor), "x"),
        Row("apply an update of 10,000 flags: longest stall of an evaluating thread", median(stalls) * 1e3, "ms", 10.0),
        Row("apply one changed flag of 10,000", median(changes) * 1e3, "ms", 1.0),
        Row("apply one changed flag of 10,000: longest stall", median(held) * 1e3, "ms", 5.0),
    ]


def timed(function: Callable[[], Any]) -> float:
    """Seconds."""
    gc.collect()
    began = time.perf_counter()
    function()
    return time.perf_counter() - began
