"""The bodies of answers, read from the HTTP client that both SDKs stand on, and what goes wrong there."""

import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, cast

import httpx2

Response = httpx2.Response
"""An answer whose status and headers have come."""

# What TLS finds wrong in mid-stream is not yet among the client's own errors.
TRANSPORT_ERRORS: Final[tuple[type[Exception], ...]] = (httpx2.RequestError, ssl.SSLError)
"""A connection that was cut or fell silent, and a body that can't be decompressed: in mid-stream nobody wraps them."""

TIMEOUTS: Final[tuple[type[Exception], ...]] = (httpx2.TimeoutException,)
"""Those of a silence."""


@asynccontextmanager
async def reading(response: Response) -> AsyncGenerator[AsyncIterator[bytes], None]:
    """The bytes of a body as they come, decompressed. Leaving closes the connection, unless all has been read."""
    if response.is_stream_consumed or "content-encoding" in response.headers:
        pieces = response.aiter_bytes().__aiter__()
    else:
        # Each piece of a plain body, most often an event, would pass through two more generators for nothing.
        pieces = cast("httpx2.AsyncByteStream", response.stream).__aiter__()
    try:
        try:
            yield pieces
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()
    finally:
        await response.aclose()
