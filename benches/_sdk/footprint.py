"""What importing costs, and what a flag weighs in memory."""

from statistics import median

from benches._sdk.rows import Row, python

FLAGS = 10_000
_IMPORT = """
import time, sys
began = time.perf_counter()
{}
print('{{"ms": %f, "modules": %d}}' % ((time.perf_counter() - began) * 1e3, len(sys.modules)))
"""
_STANDARD = "import http.client, json, threading"
_OURS = "import rollout_client"
_WEIGHT = """
import gc, json, sys, tracemalloc
import msgspec
from benches._sdk.workload import document
from rollout_client import Client, Context
from rollout_client.evaluation.ruleset import Ruleset
from rollout_client.evaluation import lines
from rollout_client.native import pause
content = json.dumps(document({flags}, rollout={rollout})).encode()
client = Client("http://127.0.0.1:9", "none", environment="bench")
gc.collect()
tracemalloc.start()
floor = msgspec.json.decode(content, type=Ruleset)
decoded = tracemalloc.get_traced_memory()[0]
del floor
gc.collect()
before = tracemalloc.get_traced_memory()[0]
client._served.adopt(lines.decode(content, pause), "service", 0)
client._changed()
gc.collect()
loaded = tracemalloc.get_traced_memory()[0] - before
user = Context("user-1", country="CH", plan="pro")
for number in range({flags}):
    client.evaluate(f"flag-{{number}}", user)
client._folder.take(0)
asked = tracemalloc.get_traced_memory()[0] - before
print(json.dumps([each / {flags} / 1024 for each in (decoded, loaded, asked)]))
"""


def rows(quick: bool) -> list[Row]:
    """The rows."""
    repeats = 5 if quick else 15
    mine, standard = [], []
    for _ in range(repeats):
        mine.append(python(_IMPORT.format(_OURS)))
        standard.append(python(_IMPORT.format(_STANDARD)))
    ms = median(a["ms"] for a in mine) / median(b["ms"] for b in standard)
    modules = mine[0]["modules"] / standard[0]["modules"]
    weight = python(_WEIGHT.format(flags=FLAGS, rollout=False)) or [None] * 3
    rollouts = python(_WEIGHT.format(flags=FLAGS, rollout=True)) or [None] * 3
    return [
        Row("import over the standard library's http.client, json and threading: time", ms, "x", 1.2),
        Row("import over the standard library's http.client, json and threading: modules", modules, "x", 1.2),
        Row(f"memory per flag at {FLAGS:,} flags", weight[1], "KB", 2.0, weight[0]),
        Row("the same, each of them in a rollout", rollouts[1], "KB", floor=rollouts[0]),
        Row("the same, each of which was asked and counted once", rollouts[2], "KB"),
    ]
