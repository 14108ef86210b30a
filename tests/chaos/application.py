"""An application: `python -m tests.chaos.application URL KEY SEED PER_SECOND FLAG...`; serves until a line comes in.

Then it sends what is left and prints what it counted itself, as JSON: requests and failures by attempt and arm, and by
revision and flag the highest bucket that was served a candidate.
"""

import json
import random
import sys
import threading
import time
from collections import Counter

from rollout_client import Client, Context
from rollout_client.evaluation.bucketing import bucket

USERS = 2000


def main() -> None:
    """Serve."""
    url, key, seed, per_second, *flags = sys.argv[1:]
    rng, counted = random.Random(int(seed)), Counter[str]()
    highest: dict[str, int] = {}
    asked = threading.Event()

    def wait() -> None:
        sys.stdin.readline()
        asked.set()

    threading.Thread(target=wait, daemon=True).start()
    client = Client(url, key, environment="production")
    client.start()
    while not asked.is_set():
        flag, user = rng.choice(flags), f"user-{rng.randrange(USERS)}"
        with client.attempt(flag, Context(user)) as attempt:
            answer = attempt.evaluation
            failed = answer.value is not None and rng.random() < answer.value["fails"]
            if failed:
                attempt.fail()
        if answer.attempt is not None:
            counted[f"{answer.attempt} {answer.arm} n"] += 1
            counted[f"{answer.attempt} {answer.arm} x"] += failed
        if answer.arm == "candidate":
            place = f"{answer.revision} {flag}"
            highest[place] = max(highest.get(place, 0), bucket(flag, user))
        time.sleep(1 / float(per_second))
    client.close(60)
    status = client.status()
    told = {"counted": counted, "highest": highest, "dropped": status.dropped, "pending": status.pending}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
