"""The requests to a platform: one client session for as long as the platform is open."""

from base64 import b64encode
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from aiohttp import ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

from agentscope import __version__
from agentscope.runtime.settings import PlatformSettings
from agentscope_adapters.connection_failures import reason_of
from agentscope_adapters.platform._proxy import proxy_for
from agentscope_adapters.platform._wire import PlatformFailedError

_LONGEST_ANSWER: Final = 64 * 1024
_MOST_DIGITS: Final = 9
# From a heartbeat to its check a connection is used again. After an interval the platform, or something on the way,
# may have closed it, and a POST that meets a closed connection fails.
_KEEP_SECONDS: Final = 1.0

_HINTS: Final[Mapping[int, str]] = {
    401: "; check platform.token",
    403: "; check platform.token",
    404: "; check platform.endpoint and platform.instance_id",
}


class PlatformClient:
    """Asks the platform of the settings. ``label`` is what it is called: scheme, host and port."""

    def __init__(self, settings: PlatformSettings, session: ClientSession, answer_seconds: float) -> None:
        endpoint = settings.endpoint or ""
        parts = urlsplit(endpoint)
        host = parts.netloc.rpartition("@")[2]
        folder = f"{parts.path.rstrip('/')}/instances/{quote(settings.instance_id, safe='')}"
        self.label = f"{parts.scheme}://{host}"
        self._heartbeats = urlunsplit((parts.scheme, host, f"{folder}/heartbeat", parts.query, ""))
        self._configuration = urlunsplit((parts.scheme, host, f"{folder}/config", parts.query, ""))
        self._proxy = proxy_for(endpoint)
        self._session = session
        self._answer_seconds = answer_seconds

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: PlatformSettings, answer_seconds: float) -> AsyncGenerator["PlatformClient"]:
        """A client whose requests may take ``answer_seconds`` each. Raises ``UserError`` for a proxy of no use."""
        async with ClientSession(
            connector=TCPConnector(keepalive_timeout=_KEEP_SECONDS),
            timeout=ClientTimeout(total=answer_seconds),
            cookie_jar=DummyCookieJar(),
            # What is compressed could become anything, and these bodies are short.
            auto_decompress=False,
            headers={
                "User-Agent": f"agentscope-kernel/{__version__}",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                **_authorization(settings),
            },
        ) as session:
            yield cls(settings, session, answer_seconds)

    async def send(self, heartbeat: bytes) -> None:
        """Send a heartbeat. Raises ``PlatformFailedError`` when it is not taken."""
        await self._exchange("POST", self._heartbeats, heartbeat)

    async def configuration(self) -> bytes:
        """What the configuration check answers. Raises ``PlatformFailedError`` when it does not."""
        return await self._exchange("GET", self._configuration)

    async def _exchange(self, method: str, url: str, body: bytes | None = None) -> bytes:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            # A redirect would take the token elsewhere.
            async with self._session.request(
                method, url, data=body, headers=headers, allow_redirects=False, proxy=self._proxy
            ) as response:
                return await _read(response)
        except PlatformFailedError:
            raise
        except Exception as error:
            # Whatever the client makes of whatever comes. It is not a cause: it holds the request, and so the token.
            raise PlatformFailedError(reason_of(error, self._answer_seconds)) from None


def _authorization(settings: PlatformSettings) -> dict[str, str]:
    if settings.token is not None:
        return {"Authorization": f"Bearer {settings.token.get_secret_value()}"}
    login, at, _ = urlsplit(settings.endpoint or "").netloc.rpartition("@")
    if not at:
        return {}
    user, _, password = login.partition(":")
    return {"Authorization": f"Basic {b64encode(f'{unquote(user)}:{unquote(password)}'.encode()).decode()}"}


async def _read(response: ClientResponse) -> bytes:
    status = response.status
    if not 200 <= status < 300:
        pause = retry_after(response.headers, datetime.now(UTC))
        raise PlatformFailedError(f"it answered {status}{_HINTS.get(status, '')}", pause)
    content = bytearray()
    async for part in response.content.iter_any():
        content += part
        if len(content) > _LONGEST_ANSWER:
            # Not to be read to its end for the sake of the connection: there may be none.
            response.close()
            raise PlatformFailedError(f"its answer is longer than {_LONGEST_ANSWER} bytes")
    return bytes(content)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds, 0 or more, until a request may be sent again, None when the headers don't say.

    They do so as a number or as a date (RFC 9110, section 10.2.3).
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text[:_MOST_DIGITS])
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
