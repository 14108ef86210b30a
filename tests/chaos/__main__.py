"""Chaos: real processes on a PostgreSQL with a synchronous replica, killed with -9 at random; the primary too, halfway.

Rollouts go on meanwhile, good and harmful ones, fed by real clients in processes of their own. At the end everything
is counted: no decision lost or doubled, no exposure above its stage, harm acted on in time, no request lost.
"""

import argparse
import sys

from benches._sdk.rows import told
from tests.chaos.storm import Weather, run


def main() -> int:
    """Run, print the rows, and with --json one object last; 1 if something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, prog="chaos")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long processes are killed (default: 120)")
    parser.add_argument("--roles", default="all,api,worker", help="one process each (default: all,api,worker)")
    parser.add_argument("--seed", type=int, default=1, help="of the kills and of the applications' users")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    wanted = parser.parse_args()
    roles = tuple(wanted.roles.split(","))
    kinds = set(roles)
    if not kinds <= {"all", "api", "worker"} or kinds in ({"api"}, {"worker"}):
        parser.error("--roles are all, api and worker; one must answer, and one must run the engine")
    rows, findings = run(Weather(seconds=wanted.seconds, roles=roles, seed=wanted.seed))
    for name, faults in findings.faults.items():
        for fault in faults[:20]:
            print(f"{name}: {fault}", file=sys.stderr)
    return told("chaos", rows, as_json=wanted.json)


if __name__ == "__main__":
    raise SystemExit(main())
