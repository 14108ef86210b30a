"""Server-sent events by hand: what changed, its tag as the id, and a heartbeat."""

from collections.abc import AsyncIterator, Awaitable, Callable
from time import monotonic

import msgspec

from rollout.delivery.hub import Hub
from rollout.telemetry import STREAMS
from rollout_client.evaluation.ruleset import Heartbeat

HUGE = 500_000
"""Bytes. What is larger is not sent to those who hold a ruleset: a heartbeat names it, and they ask for it."""


async def changes(
    hub: Hub, environment: str, tag: str | None, admitted: Callable[[], Awaitable[bool]], *, beat: float, life: float
) -> AsyncIterator[bytes]:
    """Events for a client that holds `tag` (None: nothing), until `life` seconds are over or the service closes.

    A heartbeat first and every `beat` seconds; a patch when the base is still known here, else the whole ruleset; for
    a `HUGE` one a heartbeat, if the client holds anything, which names what it is time to fetch. It ends at the first
    heartbeat for which the key is no longer admitted.
    """
    ends = monotonic() + life
    STREAMS.inc()
    try:
        yield heartbeat(hub, environment)
        beats = monotonic() + beat
        while not hub.closing:
            newest = hub.newest(environment)
            if newest is not None and newest.tag != tag:
                patch = None if tag is None else hub.patch(environment, tag)
                holds, tag = tag is not None, newest.tag
                if holds and len(newest.body if patch is None else patch) > HUGE:
                    yield heartbeat(hub, environment)
                else:
                    yield event("ruleset", newest.body, tag) if patch is None else event("patch", patch, tag)
                continue
            now = monotonic()
            if now >= ends:
                return
            if now >= beats:
                if not await admitted():
                    return
                yield heartbeat(hub, environment)
                beats = monotonic() + beat
                continue
            await hub.wait(environment, tag, min(beats, ends) - now)
    finally:
        STREAMS.dec()


def heartbeat(hub: Hub, environment: str) -> bytes:
    """The heartbeat event: which ruleset is the newest, and the age of the engine's last complete pass."""
    newest = hub.newest(environment)
    revision, edition = (newest.ruleset.revision, newest.ruleset.edition) if newest is not None else (0, "")
    said = Heartbeat(revision=revision, edition=edition, engine_age_ms=hub.engine_age_ms())
    return event("heartbeat", msgspec.json.encode(said))


def event(name: str, data: bytes, identifier: str | None = None) -> bytes:
    """One event on the wire, its data on one line: line breaks in JSON are between its tokens, and mean nothing."""
    head = b"" if identifier is None else b"id: %s\n" % identifier.encode()
    return b"%sevent: %s\ndata: %s\n\n" % (head, name.encode(), data.replace(b"\n", b""))
