"""Brings rulesets: a stream of changes, and polling for as long as the stream cannot be had."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import httpx
import msgspec
from httpx_sse import ServerSentEvent, SSEError, aconnect_sse

from rollout_client.backoff import delay, jittered
from rollout_client.evaluation.ruleset import Heartbeat, Patch, Ruleset
from rollout_client.options import Options
from rollout_client.report import Reporter, Stream, explain
from rollout_client.served import Served

ENGINE_AGE = "Rollout-Engine-Age"
_PATIENCE = 2.0
"""Seconds the stream waits for the first fetch, so that one of them brings the ruleset and not both."""

_Document = TypeVar("_Document")


class Delivery:
    """Keeps `served` current. `changed` is called after every new ruleset. All of it runs on the background thread."""

    def __init__(self, served: Served, changed: Callable[[], None], options: Options, reporter: Reporter) -> None:
        self.stream: Stream = "connecting"
        self._served = served
        self._changed = changed
        self._options = options
        self._reporter = reporter
        self._fetched = asyncio.Event()
        self._refused: int | None = None

    async def poll(self, http: httpx.AsyncClient) -> None:
        """Fetch now, and again at every interval while the stream is not open; never returns."""
        while True:
            if self.stream != "open":
                await self._fetch(http)
            self._fetched.set()
            await asyncio.sleep(jittered(self._options.poll_interval))

    async def follow(self, http: httpx.AsyncClient) -> None:
        """Listen to the stream, and open it again whenever it ends; never returns."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await self._fetched.wait()
        failures = 0
        while True:
            if await self._listen(http):
                failures = 0
            failures += 1
            self.stream = "polling"
            await asyncio.sleep(delay(failures, self._options.backoff_first, self._options.backoff_longest))

    async def _fetch(self, http: httpx.AsyncClient) -> None:
        headers = {}
        revision = self._known()
        if revision is not None:
            headers["If-None-Match"] = f'"{revision}"'
        changes = self._served.changes
        try:
            answer = await http.get("/sdk/v1/ruleset", headers=headers)
        except httpx.HTTPError as error:
            self._reporter.trouble("fetch", f"the ruleset cannot be fetched: {explain(error)}")
            return
        if answer.status_code == 304:
            self._served.vouch(_age(answer))
        elif answer.status_code == 200:
            ruleset = self._decode(answer.content, Ruleset)
            overtaken = self._served.changes != changes and revision is not None
            if ruleset is not None and not (overtaken and ruleset.revision < (self._known() or 0)):
                self._adopt(ruleset, _age(answer))
        else:
            self._refuse("ruleset", answer.status_code)

    async def _listen(self, http: httpx.AsyncClient) -> bool:
        """Follow one stream to its end; return whether it was open."""
        headers = {}
        revision = self._known()
        if revision is not None:
            headers["Last-Event-ID"] = str(revision)
        timeout = httpx.Timeout(
            self._options.answer_timeout, connect=self._options.connect_timeout, read=self._options.stream_silence
        )
        opened = False
        try:
            async with aconnect_sse(http, "GET", "/sdk/v1/stream", headers=headers, timeout=timeout) as source:
                if source.response.status_code != 200:
                    self._refuse("stream", source.response.status_code)
                    return False
                async for event in source.aiter_sse():
                    opened = True
                    self.stream = "open"
                    await self._take(event, http)
        except (httpx.HTTPError, SSEError) as error:
            self._reporter.trouble("stream", f"the stream broke: {explain(error)}")
        return opened

    async def _take(self, event: ServerSentEvent, http: httpx.AsyncClient) -> None:
        content = event.data.encode()
        if event.event == "ruleset":
            ruleset = self._decode(content, Ruleset)
            if ruleset is not None:
                self._adopt(ruleset, None)
        elif event.event == "patch":
            patch = self._decode(content, Patch)
            if patch is not None and self._served.patch(patch):
                self._changed()
            else:
                await self._fetch(http)
        elif event.event == "heartbeat":
            heartbeat = self._decode(content, Heartbeat)
            if heartbeat is not None:
                self._served.vouch(heartbeat.engine_age_ms)
                known = self._known()  # None: this stream is about to bring the whole
                if known is not None and heartbeat.revision not in (known, self._refused):
                    await self._fetch(http)

    def _known(self) -> int | None:
        """Return the revision that this service gave; one from disk or bootstrap may be of another database."""
        current = self._served.current
        return current.compiled.revision if current is not None and current.source == "service" else None

    def _adopt(self, ruleset: Ruleset, age_ms: int | None) -> None:
        if self._served.adopt(ruleset, "service", age_ms):
            self._changed()
        else:
            self._refused = ruleset.revision

    def _decode(self, content: bytes, kind: type[_Document]) -> _Document | None:
        try:
            return msgspec.json.decode(content, type=kind)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            self._reporter.trouble("document", f"the service sent no {kind.__name__.lower()}: {error}")
            return None

    def _refuse(self, what: str, status: int) -> None:
        advice: dict[int, str] = {
            401: "; check the key",
            403: '; the key needs the scope "sdk:read"',
            404: "; check the address and the environment",
        }
        self._reporter.trouble(f"{what}-{status}", f"the {what} was answered with {status}{advice.get(status, '')}")


def _age(answer: Any) -> int | None:
    said = answer.headers.get(ENGINE_AGE, "")
    return int(said) if said.isdecimal() and len(said) < 16 else None
