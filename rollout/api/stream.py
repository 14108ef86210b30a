"""Server-sent events by hand: what changed, its revision as the id, and a heartbeat."""

from collections.abc import AsyncIterator
from time import monotonic

import msgspec

from rollout.delivery.hub import Hub
from rollout.telemetry import STREAMS
from rollout_client.evaluation.ruleset import Heartbeat


async def changes(
    hub: Hub, environment: str, revision: int | None, *, beat: float, life: float
) -> AsyncIterator[bytes]:
    """Events for a client that holds `revision` (None: nothing), until `life` seconds are over or the service closes.

    A heartbeat first and every `beat` seconds; a patch when the base is still known here, else the whole ruleset.
    """
    ends = monotonic() + life
    STREAMS.inc()
    try:
        yield heartbeat(hub, environment, revision)
        beats = monotonic() + beat
        while not hub.closing:
            newest = hub.newest(environment)
            if newest is not None and newest.revision != revision:
                patch = None if revision is None else hub.patch(environment, revision)
                revision = newest.revision
                yield event("ruleset", newest.body, revision) if patch is None else event("patch", patch, revision)
                continue
            now = monotonic()
            if now >= ends:
                return
            if now >= beats:
                yield heartbeat(hub, environment, revision)
                beats = monotonic() + beat
                continue
            await hub.wait(environment, revision or 0, min(beats, ends) - now)
    finally:
        STREAMS.dec()


def heartbeat(hub: Hub, environment: str, revision: int | None) -> bytes:
    """The heartbeat event: the revision this stream has brought (the newest, before any), and the engine's age."""
    newest = hub.newest(environment)
    held = revision if revision is not None else (newest.revision if newest is not None else 0)
    return event("heartbeat", msgspec.json.encode(Heartbeat(revision=held, engine_age_ms=hub.engine_age_ms())))


def event(name: str, data: bytes, identifier: int | None = None) -> bytes:
    """One event on the wire; JSON has no line breaks, so its data is one line."""
    head = b"" if identifier is None else b"id: %d\n" % identifier
    return b"%sevent: %s\ndata: %s\n\n" % (head, name.encode(), data)
