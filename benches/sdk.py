"""The client: what an evaluation, an update, a flag and a start cost, against an interpreter, the floor and the peers.

*interp* is a plain Python interpreter over the same rules (`benches/_sdk/workload.py`), measured by turns with whatever
is given as its multiple. Peers are installed from the package index into `.tools/peers`, locked by hash, and run in
processes of their own; one that cannot be had is shown as missing, and what is compared with it does not hold.
*pushing* alone has a real service: its database, and the disk of this machine, are part of what is measured.
"""

import argparse
import importlib
import json
import time

PARTS = ("evaluating", "footprint", "applying", "blocking", "starting", "ending", "pushing")


def main() -> int:
    """Measure, print the rows, and with --json one object last; 1 if a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, prog="bench sdk")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="fewer repeats: about a minute")
    parser.add_argument("--only", action="append", choices=PARTS, help="one part; may be repeated")
    wanted = parser.parse_args()
    began, rows = time.perf_counter(), []
    for part in wanted.only or PARTS:
        for row in importlib.import_module(f"benches._sdk.{part}").rows(wanted.quick):
            rows.append(row)
            print(row.text(), flush=True)
    missed = [row.name for row in rows if not row.holds]
    print(f"\n{len(rows)} rows in {time.perf_counter() - began:.0f} s, {len(missed)} missed", *missed, sep="\n  ")
    if wanted.json:
        print(json.dumps({"bench": "sdk", "holds": not missed, "rows": [row.document() for row in rows]}))
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
