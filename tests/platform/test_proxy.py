"""The proxy of the environment, used as the vendors' clients use it."""

import asyncio
import logging
from collections.abc import Mapping

import pytest

from agentscope.errors import UserError
from agentscope.runtime.settings import PlatformSettings
from agentscope_adapters.platform._proxy import proxy_for
from agentscope_adapters.platform.http import open_platform
from platform_server import PlatformServer, RecordingInstance

PLATFORM = "http://platform.example.com:8000/x"
PROXY = "http://proxy.example.com:3128"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without a proxy."""
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_PROXY".upper(), raising=False)
    monkeypatch.delenv("REQUEST_METHOD", raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("url", "variables", "proxy"),
    [
        pytest.param(PLATFORM, {}, None, id="none"),
        pytest.param(PLATFORM, {"HTTP_PROXY": PROXY}, PROXY, id="for http"),
        pytest.param(PLATFORM, {"http_proxy": PROXY}, PROXY, id="in small letters"),
        pytest.param(PLATFORM, {"HTTPS_PROXY": PROXY}, None, id="for https alone"),
        pytest.param("https://a.example.com", {"HTTPS_PROXY": PROXY}, PROXY, id="https"),
        pytest.param("https://a.example.com", {"ALL_PROXY": PROXY}, PROXY, id="for all"),
        pytest.param(PLATFORM, {"HTTP_PROXY": "", "ALL_PROXY": ""}, None, id="empty"),
        pytest.param(PLATFORM, {"HTTP_PROXY": "proxy.example.com:3128"}, PROXY, id="without a scheme"),
        pytest.param(PLATFORM, {"HTTP_PROXY": PROXY, "NO_PROXY": "example.com"}, None, id="not for a domain"),
        pytest.param(PLATFORM, {"HTTP_PROXY": PROXY, "NO_PROXY": ".example.com"}, None, id="a dot"),
        pytest.param(PLATFORM, {"HTTP_PROXY": PROXY, "NO_PROXY": "example.org, ample.com"}, PROXY, id="others"),
        pytest.param(PLATFORM, {"HTTP_PROXY": PROXY, "NO_PROXY": "platform.example.com:8000"}, None, id="a port"),
        pytest.param(PLATFORM, {"HTTP_PROXY": PROXY, "NO_PROXY": "platform.example.com:80"}, PROXY, id="another"),
        pytest.param(PLATFORM, {"HTTP_PROXY": PROXY, "NO_PROXY": "*"}, None, id="no host"),
        pytest.param(PLATFORM, {"HTTP_PROXY": PROXY, "NO_PROXY": "a,*"}, None, id="no host, in a list"),
        pytest.param("http://127.0.0.1:1", {"HTTP_PROXY": PROXY, "NO_PROXY": "a,127.0.0.0/8"}, None, id="network"),
        pytest.param("http://127.0.0.1:1", {"HTTP_PROXY": PROXY, "NO_PROXY": "::1/64,128.0.0.0/8"}, PROXY, id="no"),
        pytest.param("http://[::1]:80", {"HTTP_PROXY": PROXY, "NO_PROXY": "::1"}, None, id="IPv6"),
    ],
)
def test_the_proxy_is_that_of_the_environment(
    environment: pytest.MonkeyPatch, url: str, variables: Mapping[str, str], proxy: str | None
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    assert proxy_for(url) == proxy


@pytest.mark.parametrize("proxy", ["socks5://hunter2@localhost", "http://", "http://hunter2:x", "http://[hunter2"])
async def test_a_proxy_that_can_not_be_used_is_a_mistake_at_start(environment: pytest.MonkeyPatch, proxy: str) -> None:
    environment.setenv("ALL_PROXY", proxy)
    with pytest.raises(UserError, match="HTTP_PROXY or ALL_PROXY") as caught:
        async with open_platform(PlatformSettings(endpoint=PLATFORM), RecordingInstance()):
            pass
    assert "hunter2" not in str(caught.value)


async def test_requests_go_through_the_proxy_with_its_login(environment: pytest.MonkeyPatch) -> None:
    settings = PlatformSettings.model_validate({"endpoint": PLATFORM, "instance_id": "a/b", "token": "hunter2"})
    async with PlatformServer() as proxy:
        environment.setenv("HTTP_PROXY", proxy.endpoint.replace("://", "://me:pass@"))
        async with open_platform(settings, RecordingInstance()):
            await proxy.until_checks(1)
        beat, check = proxy.requests[:2]
    assert beat.target == "http://platform.example.com:8000/x/instances/a%2Fb/heartbeat"
    for asked in (beat, check):
        assert asked.headers["Host"] == "platform.example.com:8000"
        assert asked.authorization == "Bearer hunter2"
        assert asked.headers["Proxy-Authorization"] == "Basic bWU6cGFzcw=="


@pytest.mark.parametrize(
    ("is_there", "reason"),
    [(True, "the proxy that the environment names answered 407"), (False, "can't be reached")],
    ids=["refuses", "gone"],
)
async def test_a_proxy_that_fails_is_named_as_what_fails_and_gets_no_token(
    environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_there: bool, reason: str
) -> None:
    caplog.set_level(logging.DEBUG)
    heads: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    proxy = await asyncio.start_server(refuse, "127.0.0.1", 0)
    environment.setenv("HTTPS_PROXY", f"http://me:hunter3@127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
    if not is_there:
        proxy.close()
    settings = PlatformSettings.model_validate(
        {"endpoint": "https://platform.example.com", "token": "hunter2", "heartbeat_interval": 0.01}
    )
    instance = RecordingInstance()
    try:
        async with open_platform(settings, instance) as platform:
            await instance.until_asked(2)
            assert platform.state == "down"
    finally:
        proxy.close()
    assert bool(heads) == is_there
    for head in heads:
        assert head.startswith(b"CONNECT platform.example.com:443 ")
        assert b"Proxy-Authorization" in head
        assert b"hunter2" not in head
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert reason in warning
    assert "hunter" not in caplog.text
