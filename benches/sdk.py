"""The client: what an evaluation, an update, a flag and a start cost, against an interpreter, the floor and the peers.

*interp* is a plain Python interpreter over the same rules (`benches/_sdk/workload.py`), measured by turns with whatever
is given as its multiple. Peers are installed from the package index into `.tools/peers`, locked by hash, and run in
processes of their own; one that cannot be had is shown as missing, and what is compared with it does not hold.
*pushing* alone has a real service: its database, and the disk of this machine, are part of what is measured.
"""

import argparse
import importlib

from benches._sdk.rows import told

PARTS = ("evaluating", "footprint", "applying", "blocking", "starting", "ending", "pushing")


def main() -> int:
    """Measure, print the rows, and with --json one object last; 1 if a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, prog="bench sdk")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="fewer repeats: about a minute")
    parser.add_argument("--only", action="append", choices=PARTS, help="one part; may be repeated")
    wanted = parser.parse_args()
    parts = (importlib.import_module(f"benches._sdk.{part}") for part in wanted.only or PARTS)
    return told("sdk", (row for part in parts for row in part.rows(wanted.quick)), as_json=wanted.json)


if __name__ == "__main__":
    raise SystemExit(main())
