"""What handlers are given: the control of the engine, who holds keys, and whom to tell about new evidence."""

from collections.abc import Callable
from dataclasses import dataclass

from rollout.api.keyring import Keyring
from rollout.engine.aside import Aside
from rollout.engine.control import Control


@dataclass(frozen=True, slots=True)
class Service:
    """Dependency `service` of every handler that needs one.

    `nudge` tells the engine of this process (if it runs here) that evidence came; `aside` works out what would hold the
    loop up. Times are in seconds, sizes in bytes.
    """

    control: Control
    keyring: Keyring
    aside: Aside
    nudge: Callable[[], None]
    most_decompressed: int
    heartbeat: float
    stream_life: float
