"""Platforms that are slow, down, or answer nonsense: nobody waits for them, and the log says it once."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agentscope.platform import Platform
from agentscope.runtime.settings import PlatformSettings
from agentscope_adapters.platform._pauses import Timing
from agentscope_adapters.platform.http import open_platform
from platform_server import FINE, Answer, PlatformServer, RecordingInstance, refuses, says

HANGS = Answer(how="hang")
STALLS = Answer(how="stall", headers={"Content-Length": "100"})
CLOSES = Answer(how="close")
CUTS = Answer(how="cut", headers={"Content-Length": "100"})
ENDLESS = Answer(how="endless")
HUGE = Answer(body=b'"' + b"x" * 1_000_000 + b'"')
LONG = "its answer is longer than 65536 bytes"
CLOSED = "the connection was closed before the answer was complete"
NO_JSON = "its configuration is not JSON"
NO_OBJECT = "its configuration is not a JSON object"
NO_UPDATED = 'its configuration does not say "updated": true or false'
NO_ACTION = 'its configuration is updated, but has no text as "action"'

QUICK = Timing(answer=30.0, farewell=30.0, first_pause=0.005, longest_pause=0.02)


@asynccontextmanager
async def spoken_to(
    server: PlatformServer, instance: RecordingInstance | None = None, timing: Timing = QUICK, **settings: Any
) -> AsyncGenerator[Platform]:
    values: dict[str, Any] = {
        "endpoint": server.endpoint,
        "instance_id": "replica-7",
        "heartbeat_interval": 0.01,
        "token": "hunter2",
        **settings,
    }
    async with open_platform(PlatformSettings(**values), instance or RecordingInstance(), timing=timing) as platform:
        yield platform


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """All that anybody logs."""
    caplog.set_level(logging.DEBUG)
    return caplog


def said(log: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """What an operator reads of the platform, without its address."""
    return [
        (record.levelno, record.getMessage().partition("127.0.0.1:")[2].partition(" ")[2])
        for record in log.records
        if record.name.startswith("agentscope") and record.levelno >= logging.INFO
    ]


def failed(reason: str) -> tuple[int, str]:
    return (logging.WARNING, f"fails: {reason}; it is asked again until it is back")


BACK = (logging.INFO, "is back")


async def ends_a_turn(server: PlatformServer, platform: Platform) -> None:
    """Return when another turn has begun and ended, after that which runs and one that is about to begin."""
    await server.until_heartbeats(3)
    assert platform.state == "up"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(refuses(500), "it answered 500", id="500"),
        pytest.param(refuses(503, retry_after="0"), "it answered 503", id="503"),
        pytest.param(refuses(429), "it answered 429", id="429"),
        pytest.param(refuses(302, location="/elsewhere"), "it answered 302", id="302"),
        pytest.param(refuses(304), "it answered 304", id="304"),
        pytest.param(refuses(401), "it answered 401; check platform.token", id="401"),
        pytest.param(refuses(403), "it answered 403; check platform.token", id="403"),
        pytest.param(refuses(404), "it answered 404; check platform.endpoint and platform.instance_id", id="404"),
        pytest.param(CLOSES, CLOSED, id="a closed connection"),
        pytest.param(CUTS, CLOSED, id="a body that is cut"),
        pytest.param(HUGE, LONG, id="a huge body"),
        pytest.param(ENDLESS, LONG, id="an endless body"),
    ],
)
@pytest.mark.parametrize("to", ["to_heartbeats", "to_checks"])
async def test_a_platform_that_fails_is_warned_of_once_and_asked_until_it_is_back(
    log: pytest.LogCaptureFixture, to: str, answer: Answer, reason: str
) -> None:
    async with PlatformServer() as server:
        getattr(server, to).extend([answer] * 5)
        async with spoken_to(server) as platform:
            await server.until(lambda server: not getattr(server, to))
            await ends_a_turn(server, platform)
        assert {asked.target for asked in server.requests} == {
            "/instances/replica-7/heartbeat",
            "/instances/replica-7/config",
        }
    assert said(log) == [failed(reason), BACK]
    assert "hunter2" not in log.text


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(Answer(body=b""), NO_JSON, id="nothing"),
        pytest.param(Answer(204, b""), NO_JSON, id="no content"),
        pytest.param(Answer(body=b"<h1>Welcome</h1>", headers={"Content-Type": "text/html"}), NO_JSON, id="a page"),
        pytest.param(Answer(body=b"\xff\xfe\xfa"), NO_JSON, id="no text"),
        pytest.param(Answer(body=b"[" * 60_000), NO_JSON, id="too deep"),
        pytest.param(Answer(body=b"9" * 60_000), NO_JSON, id="a long number"),
        pytest.param(
            Answer(body=b'{"updated": false}', headers={"Content-Encoding": "gzip"}), "", id="compressed, it says"
        ),
        pytest.param(Answer(body=b"\x1f\x8b\x08", headers={"Content-Encoding": "gzip"}), NO_JSON, id="compressed"),
        pytest.param(says([{"updated": True}]), NO_OBJECT, id="a list"),
        pytest.param(says(None), NO_OBJECT, id="null"),
        pytest.param(says({}), NO_UPDATED, id="nothing said"),
        pytest.param(says({"updated": "true", "action": "reload"}), NO_UPDATED, id="a text"),
        pytest.param(says({"updated": 1, "action": "reload"}), NO_UPDATED, id="a number"),
        pytest.param(says({"updated": None}), NO_UPDATED, id="null as a value"),
        pytest.param(says({"updated": True}), NO_ACTION, id="no action"),
        pytest.param(says({"updated": True, "action": ["reload"]}), NO_ACTION, id="a list of actions"),
        pytest.param(says({"updated": True, "action": {"a": 1}}), NO_ACTION, id="a mapping as action"),
    ],
)
async def test_nonsense_in_the_place_of_a_configuration_is_a_failure_and_nothing_is_done(
    log: pytest.LogCaptureFixture, answer: Answer, reason: str
) -> None:
    instance = RecordingInstance()
    async with PlatformServer() as server:
        server.to_checks += [answer] * 3
        async with spoken_to(server, instance) as platform:
            await server.until(lambda server: not server.to_checks)
            await ends_a_turn(server, platform)
    assert instance.actions == []
    assert said(log) == ([failed(reason), BACK] if reason else [])


async def test_what_a_platform_says_of_the_form_of_its_json_does_not_matter() -> None:
    instance = RecordingInstance()
    async with PlatformServer() as server:
        server.to_heartbeats.append(Answer(204, b"", {}))
        server.to_checks.append(
            Answer(201, b'{"action": "reload", "updated": true, "more": 1}', {"Content-Type": "a/b"})
        )
        async with spoken_to(server, instance) as platform:
            await ends_a_turn(server, platform)
    assert instance.actions == ["reload"]


async def test_a_redirect_is_not_followed_and_takes_the_token_nowhere() -> None:
    async with PlatformServer() as server, PlatformServer() as other:
        server.always = refuses(307, location=f"{other.endpoint}/instances/replica-7/heartbeat")
        async with spoken_to(server):
            await server.until_heartbeats(3)
        assert other.requests == []


async def test_an_endless_body_is_not_read_on(log: pytest.LogCaptureFixture) -> None:
    async with PlatformServer() as server:
        server.to_heartbeats.append(ENDLESS)
        async with spoken_to(server) as platform:
            await ends_a_turn(server, platform)
        # What was sent and never read is in the buffers of the sockets.
        assert server.endless_bytes < 32 * 2**20
    assert said(log)[0] == failed(LONG)


async def test_a_platform_that_dies_and_comes_back_is_two_lines_in_the_log(log: pytest.LogCaptureFixture) -> None:
    instance = RecordingInstance()
    async with PlatformServer() as server:
        async with spoken_to(server, instance) as platform:
            await ends_a_turn(server, platform)
            for _ in range(2):
                await server.stop()
                # The first of these at the latest has met a closed port.
                await instance.until_asked(len(instance.times) + 4)
                assert platform.state == "down"
                await server.start()
                await ends_a_turn(server, platform)
    lines = said(log)
    assert [level for level, _ in lines] == [logging.WARNING, logging.INFO] * 2
    assert lines[1] == lines[3] == BACK


async def test_a_platform_that_was_never_there_is_one_warning(log: pytest.LogCaptureFixture) -> None:
    server = PlatformServer()
    async with server:
        pass
    instance = RecordingInstance()
    async with spoken_to(server, instance) as platform:
        states = [platform.state]
        await instance.until_asked(4)
        assert [*states, platform.state] == ["up", "down"]
    assert said(log) == [failed("connection refused")]


async def test_a_platform_that_is_asked_over_tls_and_has_none_is_a_failure(log: pytest.LogCaptureFixture) -> None:
    instance = RecordingInstance()
    async with PlatformServer() as server:
        async with spoken_to(server, instance, endpoint=server.endpoint.replace("http:", "https:")):
            await instance.until_asked(2)
        assert server.requests == []
    assert said(log) == [failed("it does not speak TLS")]


async def test_a_name_that_nobody_knows_is_a_failure(log: pytest.LogCaptureFixture) -> None:
    instance = RecordingInstance()
    async with spoken_to(PlatformServer(), instance, endpoint="http://me:hunter3@platform.invalid", token=None):
        await instance.until_asked(2)
    (record,) = [record for record in log.records if record.levelno == logging.WARNING]
    assert record.getMessage().startswith("the platform http://platform.invalid fails: the name of its host is not")
    assert "hunter3" not in log.text


@pytest.mark.parametrize("answer", [HANGS, STALLS], ids=["nothing", "a part of it"])
async def test_a_request_that_is_not_answered_in_time_is_given_up(
    log: pytest.LogCaptureFixture, answer: Answer
) -> None:
    async with PlatformServer() as server:
        server.to_checks += [answer, answer]
        async with spoken_to(server, timing=Timing(answer=0.2, farewell=30.0, first_pause=0.005)):
            await server.until(lambda server: server.given_up == 2)
            while BACK not in said(log):
                await server.until_heartbeats(1)
    assert said(log)[:2] == [failed("no answer within 0.2 seconds"), BACK]


async def test_retry_after_is_honoured(log: pytest.LogCaptureFixture) -> None:
    async with PlatformServer() as server:
        server.to_heartbeats.append(refuses(429, retry_after="1"))
        async with spoken_to(server, timing=Timing(first_pause=0.005, farewell=30.0)):
            await server.until_heartbeats(2)
        first, second = server.heartbeats[:2]
    assert second.at - first.at >= 1


async def test_retry_after_can_not_stop_the_heartbeats() -> None:
    async with PlatformServer() as server:
        server.to_heartbeats += [refuses(503, retry_after="999999999"), refuses(503, retry_after="a while")]
        async with spoken_to(server) as platform:
            await server.until(lambda server: not server.to_heartbeats)
            await ends_a_turn(server, platform)


async def test_entering_and_leaving_wait_for_no_answer(log: pytest.LogCaptureFixture) -> None:
    now = asyncio.get_running_loop().time
    async with PlatformServer() as server:
        server.always = HANGS
        began = now()
        async with spoken_to(server, timing=Timing(farewell=0.2)):
            entered = now()
            await server.until_heartbeats(1)
            leaving = now()
        left = now()
        # The one that was hanging, and the last one, which had 0.2 seconds.
        await server.until(lambda server: server.given_up == 2)
        assert len(server.requests) == 2
    assert entered - began < 1
    assert 0.2 <= left - leaving < 5
    assert said(log) == [(logging.WARNING, "was not told of the end: no answer within 0.2 seconds")]


async def test_a_last_heartbeat_that_is_refused_is_a_warning_unless_there_was_one(
    log: pytest.LogCaptureFixture,
) -> None:
    async with PlatformServer() as server:
        async with spoken_to(server, heartbeat_interval=3600):
            await server.until_checks(1)
            server.always = refuses(500)
    async with PlatformServer() as server:
        server.always = refuses(500)
        async with spoken_to(server):
            await server.until_heartbeats(2)
    lines = said(log)
    assert lines[0] == (logging.WARNING, "was not told of the end: it answered 500")
    assert lines[1:] == [failed("it answered 500")]


async def test_leaving_at_once_tells_the_platform_at_least_the_last() -> None:
    async with PlatformServer() as server:
        async with spoken_to(server, RecordingInstance("stopped")):
            pass
        assert [beat.status for beat in server.heartbeats] == ["stopped"]


async def test_an_error_inside_is_told_and_goes_on() -> None:
    async with PlatformServer() as server:

        async def fail() -> None:
            async with spoken_to(server):
                await server.until_heartbeats(1)
                raise LookupError

        with pytest.raises(LookupError):
            await fail()
        assert len(server.heartbeats) >= 2


async def test_a_cancellation_ends_it_while_its_last_heartbeat_hangs() -> None:
    async with PlatformServer() as server:
        server.always = HANGS
        inside = asyncio.Event()

        async def speak() -> None:
            async with spoken_to(server, timing=Timing(farewell=3600.0)):
                inside.set()

        task = asyncio.create_task(speak())
        await inside.wait()
        await server.until(lambda server: bool(server.heartbeats))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.until(lambda server: server.given_up == len(server.requests))


async def test_a_slow_answer_is_waited_for_and_the_heartbeats_go_on() -> None:
    async with PlatformServer() as server:
        server.always = HANGS
        async with spoken_to(server):
            await server.until_heartbeats(1)
            assert server.given_up == 0
            server.always = FINE
            server.release()
            await server.until_heartbeats(2)


async def test_no_secret_is_in_a_repr() -> None:
    async with PlatformServer() as server:
        endpoint = f"http://127.0.0.1:{server.port}/?key=hunter2"
        async with spoken_to(server, endpoint=endpoint) as platform:
            assert "hunter2" not in repr(platform)
            assert "hunter2" not in "".join(map(repr, asyncio.all_tasks()))


def test_the_times_of_production() -> None:
    assert Timing() == Timing(answer=10, farewell=0.9, first_pause=1, longest_pause=300)
