"""Streams of an attempt: passed on as they come, timed to their first token, and read for what they used."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from rollout_client.failure import FailureKind, field, first, word
from rollout_client.usage import Usage, read_usage

Chunk = TypeVar("Chunk")


class Watch:
    """What one stream was, as far as it was read.

    Attributes:
        state: `waiting` before the first chunk was asked for, then `open`, then `ended` (read to its end), `broken` (it
        raised) or `left` (closed by whoever read it). usage: as the chunks say it. kind: why it is no whole answer,
        None when it is one.
    """

    def __init__(
        self,
        classify: Callable[[BaseException], FailureKind],
        classify_response: Callable[[Any], FailureKind | None],
        first_token: Callable[[], None],
        over: Callable[[Watch], None],
    ) -> None:
        self.state = "waiting"
        self.usage: Usage | None = None
        self.kind: FailureKind | None = None
        self._classify = classify
        self._classify_response = classify_response
        self._first_token: Callable[[], None] | None = first_token
        self._over = over
        self._model: Any = None

    def take(self, chunk: Any) -> None:
        """Look at one chunk."""
        if self._first_token is not None and carries_token(chunk):
            self._first_token()
            self._first_token = None
        # Anthropic opens with a message and Responses closes with a response; others say all of it in the chunk.
        inner = field(chunk, "message") or field(chunk, "response") or chunk
        said = field(inner, "usage") or field(chunk, "usage") or field(chunk, "usage_metadata")
        self._model = field(inner, "model") or self._model or field(chunk, "model_version")
        if said is not None:
            self.usage = read_usage(said, self._model, self.usage) or self.usage
        self.kind = self._classify_response(inner) or self.kind

    def end(self) -> None:
        """It was read to its end."""
        self._finish("ended")

    def leave(self) -> None:
        """Whoever read it closed it; after its end that is no news."""
        if self.state == "open":
            self.kind = "user_abandon"
            self._finish("left")

    def fail(self, error: BaseException) -> None:
        """It raised."""
        self.kind = self._classify(error)
        self._finish("broken")

    def _finish(self, state: str) -> None:
        if self.state in ("waiting", "open"):
            self.state = state
            self._over(self)


class Stream(Generic[Chunk]):
    """A stream that is read with `for`; `close()` closes the library's own."""

    def __init__(self, chunks: Iterable[Chunk], watch: Watch) -> None:
        self._chunks = chunks
        self._iterator: Iterator[Chunk] | None = None
        self._watch = watch

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        if self._iterator is None:
            self._watch.state = "open"
            self._iterator = iter(self._chunks)
        try:
            chunk = next(self._iterator)
        except StopIteration:
            self._watch.end()
            raise
        except BaseException as error:
            self._watch.fail(error)
            raise
        self._watch.take(chunk)
        return chunk

    def close(self) -> None:
        """Read no further."""
        self._watch.leave()
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()


class AsyncStream(Generic[Chunk]):
    """A stream that is read with `async for`; `aclose()` closes the library's own."""

    def __init__(self, chunks: AsyncIterable[Chunk], watch: Watch) -> None:
        self._chunks = chunks
        self._iterator: AsyncIterator[Chunk] | None = None
        self._watch = watch

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    async def __anext__(self) -> Chunk:
        if self._iterator is None:
            self._watch.state = "open"
            self._iterator = aiter(self._chunks)
        try:
            chunk = await anext(self._iterator)
        except StopAsyncIteration:
            self._watch.end()
            raise
        except BaseException as error:
            self._watch.fail(error)
            raise
        self._watch.take(chunk)
        return chunk

    async def aclose(self) -> None:
        """Read no further."""
        self._watch.leave()
        close = getattr(self._chunks, "aclose", None) or getattr(self._chunks, "close", None)
        if close is not None:
            closing = close()
            if hasattr(closing, "__await__"):
                await closing


def carries_token(chunk: Any) -> bool:
    """Whether a chunk brings part of an answer: envelopes that open a stream do not, chunks of unknown shape do."""
    kind = word(field(chunk, "type"))
    if kind:
        return kind.endswith("delta") and kind != "message_delta"
    choices = field(chunk, "choices")
    if isinstance(choices, list):
        delta = field(first(choices), "delta")
        return any(field(delta, name) for name in ("content", "refusal", "tool_calls", "reasoning_content"))
    return True
