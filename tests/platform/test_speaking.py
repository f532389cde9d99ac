"""What a platform is told, and what it may ask for."""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from string import ascii_lowercase
from typing import Any

import pytest

from agentscope.platform import Action, Heartbeat, Platform
from agentscope.runtime.settings import PlatformSettings
from agentscope_adapters.platform._pauses import Timing
from agentscope_adapters.platform.http import open_platform
from platform_server import Answer, PlatformServer, RecordingInstance, asks, says


@asynccontextmanager
async def spoken_to(
    server: PlatformServer, instance: RecordingInstance | None = None, **settings: Any
) -> AsyncGenerator[Platform]:
    values: dict[str, Any] = {
        "endpoint": server.endpoint,
        "instance_id": "replica-7",
        "heartbeat_interval": 0.01,
        **settings,
    }
    # The machine may be slower than a platform may.
    timing = Timing(answer=30.0, farewell=30.0)
    async with open_platform(PlatformSettings(**values), instance or RecordingInstance(), timing=timing) as platform:
        yield platform


async def test_a_heartbeat_has_the_form_of_the_specification_and_a_check_follows_it() -> None:
    instance = RecordingInstance()
    instance.timestamp = datetime(2026, 1, 15, 12, 30, 0, 999_999, timezone(timedelta(hours=2)))
    instance.metrics = {"active_sessions": 5, "memory_usage_mb": 120}
    async with PlatformServer() as server:
        async with spoken_to(server, instance, heartbeat_interval=60) as platform:
            await server.until_checks(1)
        assert isinstance(platform, Platform)
    beat, check, last = server.requests
    assert (beat.method, beat.target) == ("POST", "/instances/replica-7/heartbeat")
    assert beat.body == {
        "status": "running",
        "timestamp": "2026-01-15T10:30:00Z",
        "version": "1.2.3",
        "metrics": {"active_sessions": 5, "memory_usage_mb": 120},
    }
    assert beat.headers["Content-Type"] == "application/json"
    assert beat.headers["User-Agent"].startswith("agentscope-kernel/")
    assert (check.method, check.target) == ("GET", "/instances/replica-7/config")
    assert beat.authorization is check.authorization is None
    assert last.target == beat.target


async def test_it_says_starting_as_it_is_entered_and_stopped_as_it_is_left_without_a_check_after_it() -> None:
    instance = RecordingInstance("starting")
    async with PlatformServer() as server:
        async with spoken_to(server, instance):
            instance.status = "running"
            await server.until_heartbeats(3)
            instance.status = "stopped"
        assert [beat.status for beat in server.heartbeats][:2] == ["starting", "running"]
        assert server.requests[-1].method == "POST"
        assert server.heartbeats[-1].status == "stopped"
        told = len(server.requests)
    assert len(server.requests) == told


async def test_why_a_reload_failed_is_told_for_as_long_as_it_is_so() -> None:
    instance = RecordingInstance()
    async with PlatformServer() as server:
        async with spoken_to(server, instance):
            await server.until_heartbeats(1)
            instance.reload_error = "app.py:3: \udcff" + "x" * 5000
            await server.until_heartbeats(2)
            instance.reload_error = None
            await server.until_heartbeats(2)
        errors = [beat.body.get("reload_error") for beat in server.heartbeats]
    assert errors[0] is errors[-1] is None
    assert "reload_error" not in server.heartbeats[-1].body
    (told,) = {error for error in errors if error is not None}
    assert told.startswith("app.py:3: \\udcffxxx")
    assert len(told) == 2001


async def test_the_token_is_sent_with_every_request() -> None:
    async with PlatformServer() as server:
        async with spoken_to(server, token="hunter2"):
            await server.until_checks(1)
        assert {asked.authorization for asked in server.requests} == {"Bearer hunter2"}


async def test_a_login_in_the_endpoint_is_sent_as_a_header_and_a_query_with_every_path() -> None:
    async with PlatformServer() as server:
        endpoint = f"http://me:p%40ss@127.0.0.1:{server.port}/api/v1/?key=a%26b"
        async with spoken_to(server, endpoint=endpoint):
            await server.until_checks(1)
        assert {asked.authorization for asked in server.requests} == {"Basic bWU6cEBzcw=="}
        assert {asked.target for asked in server.requests} == {
            f"/api/v1/instances/replica-7/{leaf}?key=a%26b" for leaf in ("heartbeat", "config")
        }


@pytest.mark.parametrize("prefix", ["", "/", "/platform", "/platform/", "/%C3%A4"])
async def test_the_paths_are_below_the_endpoint(prefix: str) -> None:
    async with PlatformServer() as server:
        async with spoken_to(server, endpoint=server.endpoint + prefix):
            await server.until_heartbeats(1)
        assert server.heartbeats[0].target == f"{prefix.rstrip('/')}/instances/replica-7/heartbeat"


@pytest.mark.parametrize(
    ("instance_id", "segment"),
    [("a/b", "a%2Fb"), ("a b?c#d%2F", "a%20b%3Fc%23d%252F"), ("ü.~", "%C3%BC.~"), ("...", "..."), ("a\n", "a%0A")],
)
async def test_an_instance_id_is_one_segment_of_the_path_whatever_is_in_it(instance_id: str, segment: str) -> None:
    async with PlatformServer() as server:
        async with spoken_to(server, instance_id=instance_id):
            await server.until_checks(1)
        assert {asked.target for asked in server.requests} == {
            f"/instances/{segment}/{leaf}" for leaf in ("heartbeat", "config")
        }


async def test_each_answer_that_asks_for_something_is_obeyed_once() -> None:
    instance = RecordingInstance()
    async with PlatformServer() as server:
        server.to_checks += [asks("reload"), asks("reload"), asks("none"), asks("restart")]
        server.to_checks += [says({"updated": False, "action": "reload"}), says({"updated": False})]
        async with spoken_to(server, instance) as platform:
            await server.until_checks(8)
            assert instance.actions == ["reload", "reload", "restart"]
            assert platform.state == "up"


async def test_what_it_does_not_know_is_ignored_and_logged_once_and_never_at_length(
    caplog: pytest.LogCaptureFixture,
) -> None:
    instance = RecordingInstance()
    unknown = ["update", "update", "Reload", "x" * 10_000, "line\nbreak", "", "s3cr3t-token"]
    async with PlatformServer() as server:
        server.to_checks += [asks(action) for action in [*unknown, *unknown, *(f"act-{c}" for c in ascii_lowercase)]]
        server.to_checks.append(asks("reload"))
        async with spoken_to(server, instance) as platform:
            await server.until(lambda server: not server.to_checks)
            await server.until_heartbeats(1)
            assert platform.state == "up"
    assert instance.actions == ["reload"]
    assert len(caplog.messages) == 16
    assert caplog.messages[0].endswith("asks for 'update', which this version does not know")
    assert "something that is no word" in caplog.messages[2]
    assert "s3cr3t" not in caplog.text
    assert all(len(message) < 150 and "\n" not in message for message in caplog.messages)


async def test_the_pauses_are_those_of_the_settings() -> None:
    instance = RecordingInstance()
    async with PlatformServer() as server:
        async with spoken_to(server, instance, heartbeat_interval=0.1):
            await server.until_heartbeats(4)
    # How late they are is the machine's.
    assert all(later - earlier > 0.1 * 0.9 - 0.005 for earlier, later in pairwise(instance.times[:4]))


async def test_what_it_does_belongs_to_no_request() -> None:
    request: ContextVar[str] = ContextVar("request", default="none")
    seen: list[str] = []

    class Curious(RecordingInstance):
        def heartbeat(self) -> Heartbeat:
            seen.append(request.get())
            return super().heartbeat()

        def act(self, action: Action) -> None:
            seen.append(request.get())
            super().act(action)

    async with PlatformServer() as server:
        server.to_checks.append(asks("reload"))
        request.set("a request")
        async with spoken_to(server, Curious()):
            await server.until_heartbeats(2)
    # The first is what the instance is as the platform is entered.
    assert seen[0] == "a request"
    assert set(seen[1:]) == {"none"}


async def test_a_mistake_of_the_instance_is_logged_and_does_not_end_the_heartbeats(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Mistaken(RecordingInstance):
        def act(self, action: Action) -> None:
            raise RuntimeError("a mistake")

    async with PlatformServer() as server:
        server.to_checks.append(asks("reload"))
        async with spoken_to(server, Mistaken(), token="hunter2") as platform:
            await server.until_heartbeats(3)
            assert platform.state == "up"
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "a mistake" in caplog.text
    assert "hunter2" not in caplog.text


async def test_timestamps_are_whole_seconds_in_utc() -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    async with PlatformServer() as server:
        async with spoken_to(server):
            await server.until_heartbeats(1)
        timestamp = server.heartbeats[0].body["timestamp"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", timestamp)
    assert before <= datetime.fromisoformat(timestamp) <= datetime.now(UTC)


async def test_several_instances_in_one_process_speak_each_for_itself() -> None:
    first, second = RecordingInstance(), RecordingInstance("draining")
    async with PlatformServer() as one, PlatformServer() as other:
        one.to_checks.append(asks("reload"))
        async with spoken_to(one, first), spoken_to(other, second):
            await asyncio.gather(one.until_heartbeats(2), other.until_heartbeats(2))
        assert {beat.status for beat in one.heartbeats} == {"running"}
        assert {beat.status for beat in other.heartbeats} == {"draining"}
    assert (first.actions, second.actions) == (["reload"], [])


async def test_a_cookie_that_the_platform_sets_is_not_sent_back() -> None:
    async with PlatformServer() as server:
        server.to_heartbeats.append(Answer(headers={"Set-Cookie": "node=a; Path=/"}))
        # By its name: of an address no cookie is ever taken.
        endpoint = server.endpoint.replace("127.0.0.1", "localhost")
        async with spoken_to(server, endpoint=endpoint):
            await server.until_checks(2)
    assert not any("Cookie" in asked.headers for asked in server.requests)
