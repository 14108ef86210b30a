"""The controller: rollouts judged and passed over a second, and the time from an observation to the connected clients.

*looking* runs the engine over fleets of running rollouts on SQLite; *deciding* has a real service, its database on the
disk of this machine, and a hundred clients connected to it.
"""

import argparse
import importlib
import logging

import structlog

from benches._sdk.rows import told

PARTS = ("looking", "deciding")


def main() -> int:
    """Measure, print the rows, and with --json one object last; 1 if a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, prog="bench control")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="fewer repeats, and no ten thousand rollouts")
    parser.add_argument("--only", action="append", choices=PARTS, help="one part; may be repeated")
    wanted = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))  # rows are all it says
    parts = (importlib.import_module(f"benches._control.{part}") for part in wanted.only or PARTS)
    return told("control", (row for part in parts for row in part.rows(wanted.quick)), as_json=wanted.json)


if __name__ == "__main__":
    raise SystemExit(main())
