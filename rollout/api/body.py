"""Bodies: decoded strictly as the handler's own type, and inflated no further than they may."""

import zlib
from typing import Any

import msgspec
from litestar import Request

from rollout.errors import Malformed, TooLarge


class StrictRequest(Request[Any, Any, Any]):
    """A request whose JSON body becomes what the handler declares as `data`, without coercing anything."""

    async def json(self) -> Any:
        """The body as the type of the handler's `data`; raises msgspec's errors, which name the path."""
        declared = self.route_handler.parsed_fn_signature.parameters.get("data")
        return msgspec.json.decode(await self.body() or b"null", type=declared.annotation if declared else Any)


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """The bytes behind a Content-Encoding of `gzip` or `identity`.

    Raises:
        TooLarge: there would be more than `limit` bytes; they are never made.
        Malformed: another encoding, or bytes that are no gzip.
    """
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise Malformed(f"the content encoding {encoding!r} is not read here; send gzip or none")
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        plain = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise Malformed(f"the body is no gzip: {error}") from error
    if len(plain) > limit:
        raise TooLarge(f"the body has more than {limit} bytes after decompression; send several batches")
    if not stream.eof or stream.unused_data:
        raise Malformed("the body is no gzip: it is cut short, or something follows it")
    return plain
