"""Brings rulesets: a stream of changes, and polling for as long as the stream cannot be had.

Which ruleset one is, its edition says: numbers start again when a database is restored (decision record 0001, Ruleset).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import httpx
import msgspec
from httpx_sse import ServerSentEvent, SSEError, aconnect_sse

from rollout_client.backoff import delay, jittered
from rollout_client.evaluation import lines
from rollout_client.evaluation.ruleset import Heartbeat, Patch, Ruleset
from rollout_client.native import pause
from rollout_client.options import Options
from rollout_client.report import Reporter, Stream, explain
from rollout_client.served import Served

ENGINE_AGE = "Rollout-Engine-Age"
LARGE = 32_000
"""Bytes of a document, decoded and compiled in some milliseconds, from which on that is done aside."""
HUGE = 500_000
"""Bytes of an event, decoded in three milliseconds, from which on the ruleset is fetched instead: it comes in lines."""
_LONGEST_DETAIL = 300
_PATIENCE = 2.0
"""Seconds the stream waits for the first fetch, so that one of them brings the ruleset and not both."""

_Document = TypeVar("_Document")
Offload = Callable[..., Awaitable[Any]]
"""Calls a function with arguments where that holds nobody up, and returns what it returned."""
_Identity = tuple[str, int]
"""Edition and revision. A service from before there were editions leaves the first empty."""


class Delivery:
    """Keeps `served` current, on the loop it runs on. `changed` is called after every new ruleset.

    Large documents are decoded and compiled by way of `offload`. What is served changes on the loop alone, in order.
    """

    def __init__(
        self, served: Served, changed: Callable[[], None], options: Options, reporter: Reporter, offload: Offload
    ) -> None:
        self.stream: Stream = "connecting"
        self._offload = offload
        self._one = asyncio.Lock()
        self._large = False
        self._served = served
        self._changed = changed
        self._options = options
        self._reporter = reporter
        self._fetched = asyncio.Event()
        self._refused: _Identity | None = None
        self._tag = ""
        self._heard: tuple[_Identity, float] | None = None

    async def poll(self, http: httpx.AsyncClient) -> None:
        """Fetch now, and again at every interval until the stream is open and something served; never returns."""
        while True:
            if self.stream != "open" or self._known() is None:
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

    async def _fetch(self, http: httpx.AsyncClient, whole: bool = False) -> None:
        known = self._known()
        headers = {"If-None-Match": f'"{self._tag}"'} if known and self._tag and not whole else {}
        changes = self._served.changes
        try:
            answer = await http.get("/sdk/v1/ruleset", headers=headers)
        except httpx.HTTPError as error:
            self._reporter.trouble("fetch", f"the ruleset cannot be fetched: {explain(error)}")
            return
        if answer.status_code == 304:
            if self._served.changes == changes:  # else it speaks of a ruleset that is served no more
                self._served.vouch(_age(answer))
        elif answer.status_code == 200:
            heard = self._options.monotonic()
            async with self._one:
                ruleset = await self._decode(answer.content, Ruleset)
                now = self._known()
                # What the stream brought meanwhile is newer. If it is not, the next heartbeat says so.
                overtaken = known is not None and now is not None and self._served.changes != changes
                if ruleset is not None and not (overtaken and now is not None and ruleset.revision <= now[1]):
                    await self._adopt(ruleset, _age(answer), heard, _opaque(answer.headers.get("ETag", "")))
        else:
            self._refuse("ruleset", answer.status_code, answer.content)

    async def _listen(self, http: httpx.AsyncClient) -> bool:
        """Follow one stream to its end; return whether it was open."""
        headers = {"Last-Event-ID": self._tag} if self._known() and self._tag else {}
        timeout = httpx.Timeout(
            self._options.answer_timeout, connect=self._options.connect_timeout, read=self._options.stream_silence
        )
        opened = False
        try:
            async with aconnect_sse(http, "GET", "/sdk/v1/stream", headers=headers, timeout=timeout) as source:
                if source.response.status_code != 200:
                    self._refuse("stream", source.response.status_code, await source.response.aread())
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
        if event.event in ("ruleset", "patch") and len(content) >= HUGE:
            await self._fetch(http, whole=True)
        elif event.event == "ruleset":
            async with self._one:
                ruleset = await self._decode(content, Ruleset)
                if ruleset is not None:
                    heard = self._options.monotonic()
                    await self._adopt(ruleset, self._age_heard(ruleset), heard, event.id)
        elif event.event == "patch":
            if not await self._patch(content, event.id):
                await self._fetch(http, whole=True)
        elif event.event == "heartbeat":
            heartbeat = await self._decode(content, Heartbeat)
            if heartbeat is not None:
                await self._hear(heartbeat, http)

    async def _hear(self, heartbeat: Heartbeat, http: httpx.AsyncClient) -> None:
        """Let a heartbeat vouch for the ruleset it names, and for no other; fetch the one it names when it is new."""
        named, known = (heartbeat.edition, heartbeat.revision), self._known()
        if heartbeat.engine_age_ms is not None:
            self._heard = named, self._options.monotonic() - heartbeat.engine_age_ms / 1000
        if named == known:
            self._served.vouch(heartbeat.engine_age_ms)
        elif known is not None and named != self._refused:  # None: this stream is about to bring the whole
            await self._fetch(http, whole=True)

    def _age_heard(self, ruleset: Ruleset) -> int | None:
        """Return the engine's age (ms) as the heartbeat of this very ruleset told it, None when there was none."""
        if self._heard is None or self._heard[0] != (ruleset.edition, ruleset.revision):
            return None
        return int((self._options.monotonic() - self._heard[1]) * 1000)

    def _known(self) -> _Identity | None:
        """Return which ruleset this service gave; one from disk or bootstrap may be of another database."""
        current = self._served.current
        if current is None or current.source != "service":
            return None
        return current.compiled.ruleset.edition, current.compiled.revision

    async def _adopt(self, ruleset: Ruleset, age_ms: int | None, heard: float, tag: str) -> None:
        compiled = await self._work(self._served.compile, ruleset)
        if compiled is None:
            self._refused = ruleset.edition, ruleset.revision
        else:
            self._served.take(compiled, "service", age_ms, heard)
            await self._follow(tag)

    async def _patch(self, content: bytes, tag: str) -> bool:
        async with self._one:
            patch = await self._decode(content, Patch)
            compiled = None if patch is None else await self._work(self._served.patched, patch)
            if compiled is not None:
                self._served.take(compiled, "service", None, 0.0)
                await self._follow(tag)
            return compiled is not None

    async def _follow(self, tag: str) -> None:
        self._tag = tag
        await self._work(self._changed)
        await self._work(self._served.let_go)

    async def _work(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function aside while documents are large; a patch may be small, and what it is applied to large."""
        return await self._offload(function, *arguments) if self._large else function(*arguments)

    async def _decode(self, content: bytes, kind: type[_Document]) -> _Document | None:
        if kind is Ruleset:
            self._large = len(content) >= LARGE
        try:
            if len(content) < LARGE:
                return msgspec.json.decode(content, type=kind)
            found: _Document = await self._offload(_read, content, kind)
            return found
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            self._reporter.trouble("document", f"the service sent no {kind.__name__.lower()}: {error}")
            return None

    def _refuse(self, what: str, status: int, body: bytes) -> None:
        advice: dict[int, str] = {
            401: "check the key",
            403: 'the key needs the scope "sdk:read" for the environment',
            404: "check the address and the environment",
        }
        said = _detail(body) or advice.get(status, "it says no more")
        self._reporter.trouble(f"{what}-{status}", f"the {what} was answered with {status}: {said}")


def _read(content: bytes, kind: type[Any]) -> Any:
    return lines.decode(content, pause) if kind is Ruleset else msgspec.json.decode(content, type=kind)


def _detail(body: bytes) -> str:
    """Return what a problem document says (RFC 9457), nothing for any other answer."""
    try:
        problem = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ""
    return str(problem.get("detail", ""))[:_LONGEST_DETAIL]


def _opaque(etag: str) -> str:
    """Return what an entity tag quotes: the service's name for a ruleset, in events as well. Proxies may weaken it."""
    return etag.removeprefix("W/").strip('"')


def _age(answer: Any) -> int | None:
    said = answer.headers.get(ENGINE_AGE, "")
    return int(said) if said.isdecimal() and len(said) < 16 else None
