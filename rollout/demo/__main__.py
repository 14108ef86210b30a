"""`python3 dev.py demo`: three real rollouts in the terminal; `--check` proves that they end as they must."""

import argparse
import json
import os
import signal
import sys
from types import FrameType

from rollout.demo.failure import DemoFailed
from rollout.demo.screen import Screen, Span
from rollout.demo.undisturbed import ENDING

MOST_APPS = 16


def options(argv: list[str] | None = None) -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(
        prog="dev.py demo",
        description=__doc__.replace("`", ""),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--check", action="store_true", help="no panel; exit 0 only if all outcomes are right")
    parser.add_argument(
        "--database-url", metavar="URL", help="a PostgreSQL database; without one, a temporary SQLite file"
    )
    parser.add_argument("--apps", type=int, default=2, help="how many app processes share the traffic")
    asked = parser.parse_args(argv)
    if not 1 <= asked.apps <= MOST_APPS:
        parser.error(f"--apps: choose 1 to {MOST_APPS} processes")
    return asked


def interrupted(_: int, __: FrameType | None) -> None:
    """Any signal to end is an interrupt: what was started is stopped on the way out, which no second one cuts short."""
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)
    os.write(sys.stderr.fileno(), b"\nstopping ...\n")  # not by a stream, which the signal may have interrupted
    raise KeyboardInterrupt


def main() -> int:
    """Run the demonstration."""
    asked = options()
    for number in ENDING:
        signal.signal(number, interrupted)
    live = sys.stdout.isatty() and not asked.check
    screen = Screen(sys.stdout, live=live, colour=live and "NO_COLOR" not in os.environ)
    screen.say((Span(" Loading the demonstration ...", "dim"),))
    try:
        from rollout.demo.performance import demonstrate  # a second or more, in which something is to be seen

        return demonstrate(asked, screen)
    except DemoFailed as error:
        screen.close()
        print(f"The demonstration failed: {error}", file=sys.stderr)
        if asked.check:
            print(json.dumps({"holds": False, "deviations": [str(error)]}))
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        screen.close()
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            print("\rstopped", file=sys.stderr)  # over any further ^C


if __name__ == "__main__":
    sys.exit(main())
