"""Ten million evaluations with flat memory: `python -m benches._sdk.soak [MILLIONS]`; 1 if memory grows.

Every user is new, and exposure counting is on. What may grow is bounded (the memory of units, a minute of places), and
is full after the first fifth; from then on the resident memory must stay within 5 % (2 MB at least) of what it was.
"""

import resource
import sys
import time
from pathlib import Path

from benches._sdk.evaluating import _client
from benches._sdk.workload import FLAGS, KEYS, document
from rollout_client import Context

STEPS = 10


def resident() -> float:
    """Megabytes in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def main() -> int:
    """Evaluate, and print what is in memory after each tenth."""
    many = int(float(sys.argv[1] if len(sys.argv) > 1 else 10) * 1_000_000)
    client = _client(document(rollout=True))
    sizes, began = [], time.perf_counter()
    for step in range(STEPS):
        for number in range(step * many // STEPS, (step + 1) * many // STEPS):
            client.evaluate(KEYS[number % FLAGS], Context(f"user-{number}", country="CH", plan="pro"))
            if number % 100_000 == 0:  # as the client's thread does, once a second
                client._folder.take(int(time.time() // 60))
        sizes.append(resident())
        print(f"{(step + 1) * many // STEPS:>12,} evaluations  {sizes[-1]:8.1f} MB", flush=True)
    settled = max(sizes[: STEPS // 5])
    flat = sizes[-1] <= max(settled * 1.05, settled + 2.0)
    print(f"{'flat' if flat else 'GROWING'} in {time.perf_counter() - began:.0f} s")
    return 0 if flat else 1


if __name__ == "__main__":
    raise SystemExit(main())
