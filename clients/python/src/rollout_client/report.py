"""What the client says about itself: a status to read, and a log line per kind of trouble, once."""

from __future__ import annotations

import os
from typing import Literal

import msgspec

Source = Literal["none", "bootstrap", "disk", "service"]
Stream = Literal["off", "connecting", "open", "polling", "closed"]


def explain(error: Exception) -> str:
    """Return an error in words. A request that cannot be written is not quoted: its headers hold the key."""
    name = type(error).__name__
    return f"{name}: check the address and the key" if name == "LocalProtocolError" else f"{name} {error}".rstrip()


def _place(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    code = trace.tb_frame.f_code
    return f" in {code.co_name} ({os.path.basename(code.co_filename)}:{trace.tb_lineno})"  # noqa: PTH119


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a client at one moment.

    Attributes:
        ready: the service has answered with, or confirmed, the ruleset that is served. revision: what is served,
        None before any ruleset; `source` is where it came from. stream: how changes arrive. lapsed: some lease in
        the ruleset has lapsed; its rules serve the baseline. vouched_age: seconds since the engine's last complete
        protect pass, None when the service never vouched. pending: batches that wait to be sent or acknowledged.
        dropped: what was lost or could not be counted, by what it was; `unused` observations are of metrics no
        rollout asks for. last_error: the last trouble in words, None after none. breakers: circuit breakers that are
        open, as "flag/variant" with the kind of failure that opened them. alerts: how often one opened in this process.
    """

    ready: bool
    revision: int | None
    source: Source
    stream: Stream
    lapsed: bool
    vouched_age: float | None
    pending: int
    dropped: dict[str, int]
    last_error: str | None
    breakers: dict[str, str] = {}
    alerts: int = 0


class Reporter:
    """Keeps the last trouble and writes each kind of it to the log once."""

    def __init__(self) -> None:
        self.last_error: str | None = None
        self._logged: set[str] = set()

    def trouble(self, kind: str, said: str) -> None:
        """Remember a trouble; the first of its kind is logged as a warning, later ones as debug."""
        self.last_error = said
        self._log(kind, "%s", said)

    def news(self, kind: str, said: str) -> None:
        """Log what an operator should look at, and is no trouble of the client: the first of its kind as a warning."""
        self._log(kind, "%s", said)

    def failed_call(self, what: str, error: Exception) -> None:
        """Log the type and the place of an error of the application's own call; the first of a kind as a warning.

        Its text stays out of the log: it often holds the prompt.
        """
        name = type(error).__name__
        self._log(f"{what} {name}", "%s failed: %s%s", what, name, _place(error))

    def _log(self, kind: str, said: str, *parts: str) -> None:
        import logging  # which the import of the client would wait for: a tenth of its time

        level = logging.DEBUG if kind in self._logged else logging.WARNING
        self._logged.add(kind)
        logging.getLogger("rollout_client").log(level, said, *parts)
