"""The controller: rollouts judged and passed over a second, and the time from an observation to the connected clients.

*looking* runs the engine over fleets of running rollouts on SQLite; *deciding* has a real service, its database on the
disk of this machine, and a hundred clients connected to it.
"""

import argparse
import importlib
import json
import time

PARTS = ("looking", "deciding")


def main() -> int:
    """Measure, print the rows, and with --json one object last; 1 if a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, prog="bench control")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="fewer repeats, and no ten thousand rollouts")
    parser.add_argument("--only", action="append", choices=PARTS, help="one part; may be repeated")
    wanted = parser.parse_args()
    began, rows = time.perf_counter(), []
    for part in wanted.only or PARTS:
        for row in importlib.import_module(f"benches._control.{part}").rows(wanted.quick):
            rows.append(row)
            print(row.text(), flush=True)
    missed = [row.name for row in rows if not row.holds]
    print(f"\n{len(rows)} rows in {time.perf_counter() - began:.0f} s, {len(missed)} missed", *missed, sep="\n  ")
    if wanted.json:
        print(json.dumps({"bench": "control", "holds": not missed, "rows": [row.document() for row in rows]}))
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
