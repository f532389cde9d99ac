"""Reading the body of a request: within its limits of size and time, and decompressed no faster than others wait."""

import asyncio
import zlib
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from agentscope.server._errors import ApiError
from agentscope.server._keys import RUNTIME

BODY_SECONDS: Final = 120.0
"""How long a client may take to send a body: a slow one holds a connection, but no session and no slot yet."""

_AT_ONCE: Final = 256 * 1024
"""How many bytes are decompressed before the loop turns: a small body may become a very large one."""

# The `wbits` of zlib, which tell the formats apart (RFC 9110, section 8.4.1).
_COMPRESSIONS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}


async def read_body(request: web.Request) -> bytes:
    """The body, decompressed. Raises ``ApiError`` when it is too large, does not come in time, or can't be read."""
    try:
        return await _read(request)
    except TimeoutError as error:
        message = f"the body did not come within {BODY_SECONDS:g} seconds"
        raise ApiError(408, "INVALID_REQUEST", message, closes=True) from error
    except (web.RequestPayloadError, HttpProcessingError, zlib.error) as error:
        message = "the body can't be read: it is cut or wrongly encoded"
        raise ApiError(400, "INVALID_REQUEST", message, closes=True) from error


async def _read(request: web.Request) -> bytes:
    # Not `request.read()`: its limit is that of the application this one may be mounted in.
    limit = request[RUNTIME].settings.server.max_body_bytes
    content = request.content
    compression = _compression(request)
    if compression is None and content.is_eof() and content.exception() is None:
        # Most bodies come with the head of their request, and need no clock.
        whole = content.read_nowait()
        if len(whole) > limit:
            raise _too_large(limit)
        return whole
    body = bytearray()
    plain = None if compression is None else _Decompressed(compression, limit)
    async with asyncio.timeout(BODY_SECONDS):
        async for piece in content.iter_any():
            if plain is None:
                body += piece
            else:
                await plain.add(piece, body)
            if len(body) > limit:
                raise _too_large(limit)
    if plain is not None:
        plain.check_end()
    return bytes(body)


class _Decompressed:
    """What compressed pieces amount to. ``limit`` is how many bytes are wanted of it."""

    def __init__(self, wbits: int, limit: int) -> None:
        self._limit = limit
        self._inflate = zlib.decompressobj(wbits)

    async def add(self, piece: bytes, body: bytearray) -> None:
        """Add what a piece holds to the body, up to one byte more than is wanted."""
        rest = piece
        while rest and len(body) <= self._limit:
            body += self._inflate.decompress(rest, min(_AT_ONCE, self._limit + 1 - len(body)))
            rest = self._inflate.unconsumed_tail
            if rest:
                await asyncio.sleep(0)

    def check_end(self) -> None:
        """Raise ``zlib.error`` when the end is missing."""
        if not self._inflate.eof:
            raise zlib.error("the compressed body has no end")


def _compression(request: web.Request) -> int | None:
    name = request.headers.get("Content-Encoding", "identity").lower()
    if name == "identity":
        return None
    if name not in _COMPRESSIONS:
        raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", "the body may be compressed with gzip or deflate only")
    return _COMPRESSIONS[name]


def _too_large(limit: int) -> ApiError:
    return ApiError(413, "PAYLOAD_TOO_LARGE", f"the body is larger than {limit} bytes", closes=True)
