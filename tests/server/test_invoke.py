"""``POST /invoke``: the three forms of an answer, and what ends it."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession, web

from agentscope.errors import RuntimeNotReadyError, SessionConflictError
from agentscope.message import Msg
from agentscope.model import ModelBadRequestError, ModelRateLimitError
from agentscope.runtime import AgentApp, Runtime, SessionContext, runtime
from agentscope.server import ServerRunner, create_app
from agentscope.testing import ScriptedModel
from serving import Echo, invocation, served, settings


class Speaks(AgentApp):
    """Streams what the model says, a line a chunk, as the guide's quickstart does."""

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        async for chunk in runtime.models.main.stream([msg]):
            if chunk.text:
                yield Msg(name="assistant", content=chunk.text, role="assistant")


async def test_an_answer_is_one_line_a_message_and_a_trailer() -> None:
    async with served(Speaks, models={"main": ScriptedModel("Hel lo")}) as server:
        response = await server.post(invocation())
        text = await response.text()
    assert response.status == 200
    assert response.headers["Content-Type"] == "application/x-ndjson; charset=utf-8"
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Accel-Buffering"] == "no"
    assert response.headers["X-Request-Id"]
    first, second, trailer = (json.loads(line) for line in text.splitlines())
    assert list(first) == ["id", "name", "role", "content", "metadata", "timestamp"]
    assert (first["name"], first["role"], first["content"], first["metadata"]) == ("assistant", "assistant", "Hel", {})
    assert second["content"] == " lo"
    assert trailer == {"metadata": {"done": True, "usage": {"input_tokens": 0, "output_tokens": 2}}}


async def test_server_sent_events_carry_the_same_objects() -> None:
    async with served(Speaks, models={"main": ScriptedModel("Hi")}) as server:
        response = await server.post(invocation(), headers={"Accept": "text/event-stream"})
        text = await response.text()
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    message, trailer, rest = text.split("\n\n")
    assert json.loads(message.removeprefix("data: "))["content"] == "Hi"
    event, data = trailer.split("\n")
    assert event == "event: done"
    assert json.loads(data.removeprefix("data: "))["metadata"]["done"] is True
    assert rest == ""


@pytest.mark.parametrize(
    ("query", "accept"),
    [("?stream=false", "*/*"), ("", "application/json"), ("", "application/json, text/plain, */*")],
    ids=["query", "accept", "accept of a browser library"],
)
async def test_a_client_may_ask_for_one_document(query: str, accept: str) -> None:
    async with served(Speaks, models={"main": ScriptedModel("a b")}) as server:
        response = await server.client.post(f"/invoke{query}", json=invocation(), headers={"Accept": accept})
        document = await response.json()
    assert [message["content"] for message in document["messages"]] == ["a", " b"]
    assert document["metadata"] == {"done": True, "usage": {"input_tokens": 0, "output_tokens": 2}}


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", "application/x-ndjson"),
        ("text/html", "application/x-ndjson"),
        ("application/json;q=0.5, application/x-ndjson", "application/x-ndjson"),
        ("application/json;q=0.5, text/event-stream;q=0.9", "text/event-stream"),
        ("text/event-stream;q=nonsense, application/json", "application/json"),
    ],
)
async def test_the_accept_header_chooses_the_form(accept: str, content_type: str) -> None:
    async with served(Echo) as server:
        response = await server.post(invocation(), headers={"Accept": accept})
        assert response.content_type == content_type


async def test_each_line_is_sent_as_soon_as_the_app_yields_it() -> None:
    proceed = asyncio.Event()

    class Waits(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            yield Msg("assistant", "first", "assistant")
            await proceed.wait()
            yield Msg("assistant", "second", "assistant")

    async with served(Waits) as server:
        response = await server.post(invocation())
        assert json.loads(await response.content.readline())["content"] == "first"
        proceed.set()
        assert json.loads(await response.content.readline())["content"] == "second"


class Plain(AgentApp):
    """Answers as a coroutine: what it returns is chosen by the message."""

    async def __call__(self, msg: Msg, ctx: SessionContext) -> Any:
        async def several() -> AsyncIterator[Msg]:
            yield Msg("assistant", "one", "assistant")
            yield Msg("assistant", "two", "assistant")

        answers = {"nothing": None, "message": Msg("assistant", "one", "assistant"), "iterator": several()}
        return answers[msg.get_text_content() or ""]


@pytest.mark.parametrize(
    ("kind", "contents"), [("nothing", []), ("message", ["one"]), ("iterator", ["one", "two"])], ids=str
)
async def test_a_coroutine_may_return_nothing_a_message_or_an_iterator(kind: str, contents: list[str]) -> None:
    async with served(Plain) as server:
        *messages, trailer = await server.lines(invocation(kind))
    assert [message["content"] for message in messages] == contents
    assert trailer["metadata"]["done"] is True


async def test_an_app_with_hooks_only_answers_with_the_trailer() -> None:
    class Hooks(AgentApp):
        pass

    async with served(Hooks) as server:
        assert await server.lines(invocation()) == [
            {"metadata": {"done": True, "usage": {"input_tokens": 0, "output_tokens": 0}}}
        ]


def failing(error: Exception, *, lines: int) -> type[AgentApp]:
    class Fails(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            for _ in range(lines):
                yield Msg("assistant", "so far", "assistant")
            raise error

    return Fails


FAILURES = [
    pytest.param(ValueError("secret detail"), 500, "APP_ERROR", id="unexpected"),
    pytest.param(ModelBadRequestError("main", "secret detail", status=400), 502, "MODEL_ERROR", id="model"),
    pytest.param(SessionConflictError("s1", expected=1, found=2), 409, "SESSION_BUSY", id="conflict"),
]


@pytest.mark.parametrize(("error", "status", "code"), FAILURES)
async def test_an_error_before_the_first_line_is_a_status(error: Exception, status: int, code: str) -> None:
    async with served(failing(error, lines=0)) as server:
        response = await server.post(invocation())
        document = await response.json()
    assert response.status == status
    assert document["error"]["code"] == code
    assert document["error"]["request_id"] == response.headers["X-Request-Id"]
    assert "secret detail" not in document["error"]["message"]


@pytest.mark.parametrize(("error", "status", "code"), FAILURES)
async def test_an_error_after_the_first_line_is_in_the_trailer(error: Exception, status: int, code: str) -> None:
    async with served(failing(error, lines=1)) as server:
        line, trailer = await server.lines(invocation())
    assert line["content"] == "so far"
    assert trailer["error"]["code"] == code
    assert trailer["metadata"] == {"done": True, "error": True}
    assert "secret detail" not in trailer["error"]["message"]


async def test_an_app_that_saves_without_loading_is_told_in_the_log_and_not_to_the_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served(failing(SessionConflictError("s1", expected=None, found=2), lines=0)) as server:
        response = await server.post(invocation())
        assert response.status == 500
        assert "load_session_state" not in await response.text()
    assert "call load_session_state(…) before save_session_state(…)" in caplog.text


async def test_an_error_event_ends_a_stream_of_events() -> None:
    async with served(failing(ValueError("x"), lines=1)) as server:
        text = await (await server.post(invocation(), headers={"Accept": "text/event-stream"})).text()
    assert text.split("\n\n")[1].startswith("event: error\ndata: {")


async def test_an_error_of_a_document_is_a_status_even_after_messages() -> None:
    async with served(failing(ValueError("x"), lines=1)) as server:
        response = await server.client.post("/invoke?stream=false", json=invocation())
        assert response.status == 500


async def test_debug_mode_tells_the_client_what_was_raised() -> None:
    async with served(failing(ValueError("the detail"), lines=0), server={"debug": True}) as server:
        document = await (await server.post(invocation())).json()
    assert document["error"]["message"] == "ValueError: the detail"


async def test_a_rate_limit_of_the_vendor_tells_when_to_come_back() -> None:
    async with served(failing(ModelRateLimitError("main", retry_after=2.5), lines=0)) as server:
        response = await server.post(invocation())
    assert response.headers["Retry-After"] == "3"


@pytest.mark.parametrize("value", ["text", {"a": 1}, 7], ids=["string", "mapping", "number"])
async def test_what_is_not_a_message_is_the_apps_error(value: object) -> None:
    class Wrong(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            yield value  # type: ignore[misc]  # pyright: ignore[reportReturnType]

    async with served(Wrong, server={"debug": True}) as server:
        document = await (await server.post(invocation())).json()
    assert document["error"]["code"] == "APP_ERROR"
    assert "must yield or return Msg objects" in document["error"]["message"]


async def test_silence_is_filled_with_keep_alives_that_commit_the_status() -> None:
    proceed = asyncio.Event()

    class Silent(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            await proceed.wait()
            if msg.content:
                raise ValueError("too late for a status")
            yield msg

    async with served(Silent, server={"keepalive_interval": 0.02}) as server:
        response = await server.post(invocation())
        assert response.status == 200
        assert await response.content.readline() == b"\n"
        proceed.set()
        trailer = (await response.text()).strip()
        events = await server.post(invocation(session_id="s2"), headers={"Accept": "text/event-stream"})
        assert events.status == 500  # `proceed` is set: it fails before any keep-alive was due
    assert json.loads(trailer)["error"]["code"] == "APP_ERROR"


async def test_an_invocation_past_its_deadline_is_cancelled() -> None:
    cleaned: list[str] = []

    class Slow(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            assert ctx.deadline is not None
            if msg.get_text_content() == "with a line":
                yield Msg("assistant", "so far", "assistant")
            try:
                await asyncio.Event().wait()
            finally:
                cleaned.append(ctx.session_id)

    async with served(Slow, server={"request_timeout": 0.05}) as server:
        response = await server.post(invocation(session_id="a"))
        document = await response.json()
        lines = await server.lines(invocation("with a line", session_id="b"))
    assert (response.status, document["error"]["code"]) == (504, "TIMEOUT")
    assert lines[-1]["error"]["code"] == "TIMEOUT"
    assert cleaned == ["a", "b"]


async def test_the_app_is_told_about_the_request() -> None:
    seen: list[SessionContext] = []

    class Looks(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> None:
            seen.append(ctx)

    async with served(Looks) as server:
        response = await server.post(
            invocation(metadata={"user_id": "u1"}), headers={"X-Request-Id": "mine-1", "Accept": "application/json"}
        )
        await server.post(invocation(), headers={"X-Request-Id": "not safe\tat all"})
    assert response.headers["X-Request-Id"] == "mine-1"
    first, second = seen
    assert (first.session_id, first.request_id, first.metadata) == ("s1", "mine-1", {"user_id": "u1"})
    assert (first.deadline, first.identity) == (None, None)
    assert second.metadata == {}
    assert second.request_id != "not safe\tat all"


@pytest.mark.parametrize("given", ["x" * 129, "x" * 5000, "mine-1 and more", "mine-1\u00e9"])
async def test_a_name_of_a_request_that_would_spoil_the_log_is_not_taken(given: str) -> None:
    async with served(Echo) as server:
        response = await server.post(invocation(), headers={"X-Request-Id": given})
        longest = await server.post(invocation(), headers={"X-Request-Id": "x" * 128})
    assert 0 < len(response.headers["X-Request-Id"]) <= 128
    assert not response.headers["X-Request-Id"].startswith(("x", "mine"))
    assert longest.headers["X-Request-Id"] == "x" * 128


async def test_a_body_with_a_charset_in_quotes_and_gzip_is_read() -> None:
    import gzip

    async with served(Echo) as server:
        response = await server.client.post(
            "/invoke",
            data=gzip.compress(json.dumps(invocation("häßlich 你好")).encode()),
            headers={"Content-Type": 'application/json; charset="UTF-8"', "Content-Encoding": "gzip"},
        )
        assert json.loads((await response.text()).splitlines()[0])["content"] == "häßlich 你好"


async def test_the_limit_of_a_body_is_the_runtimes_also_inside_another_application() -> None:
    host = web.Application(client_max_size=1000)
    rt = Runtime(settings(server={"max_body_bytes": 5000}), app=Echo)
    host.add_subapp("/agent", create_app(rt))
    runner = ServerRunner(host)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
            answers = [await client.post("/agent/invoke", json=invocation("x" * size)) for size in (3000, 6000)]
            assert [answer.status for answer in answers] == [200, 413]
            assert "larger than 5000 bytes" in await answers[1].text()
    finally:
        await runner.cleanup()


async def test_a_block_keeps_the_keys_that_only_its_vendor_knows() -> None:
    received: list[Msg] = []

    class Keeps(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            received.append(msg)
            yield msg

    block = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
    async with served(Keeps) as server:
        line, _ = await server.lines(invocation([block]))
    assert received[0].content == [block]
    assert line["content"] == [block]


class HostileError(Exception):
    """An exception whose text fails."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (HostileError(), "APP_ERROR"),
        (ValueError("\ud800"), "APP_ERROR"),
        (ModelRateLimitError("main", retry_after=float("nan")), "MODEL_ERROR"),
        (ModelRateLimitError("main", retry_after=float("inf")), "MODEL_ERROR"),
    ],
    ids=["text that fails", "lone surrogate", "nan seconds", "endless seconds"],
)
@pytest.mark.parametrize("lines", [0, 1], ids=["before a line", "after a line"])
async def test_an_error_that_can_not_be_told_is_told_all_the_same(error: Exception, code: str, lines: int) -> None:
    async with served(failing(error, lines=lines), server={"debug": True}) as server:
        text = await (await server.post(invocation())).text()
        assert json.loads(text.splitlines()[-1])["error"]["code"] == code
        # The connection is still in order.
        assert (await server.post(invocation(session_id="other"))).status in {200, 500, 502}


@pytest.mark.parametrize(
    "error",
    [RuntimeNotReadyError("not mine"), web.HTTPFound("/elsewhere"), ConnectionRefusedError("the app's database")],
    ids=["not ready", "redirect", "connection"],
)
async def test_what_the_app_raises_is_never_taken_for_the_servers_own(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(failing(error, lines=0)) as server:
        response = await server.post(invocation(), headers={"X-Request-Id": "mine-1"}, allow_redirects=False)
        document = await response.json()
    assert (response.status, document["error"]["code"]) == (500, "APP_ERROR")
    assert document["error"]["request_id"] == "mine-1"
    assert "the app failed, request mine-1" in caplog.text


async def test_an_answer_too_large_for_one_document_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentscope.server._invoke.LARGEST_DOCUMENT", 100_000)

    class Endless(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            while True:
                yield Msg("assistant", "x" * 1000, "assistant")

    async with served(Endless) as server:
        response = await server.client.post("/invoke?stream=false", json=invocation())
        document = await response.json()
    assert (response.status, document["error"]["code"]) == (500, "APP_ERROR")
    assert "ask for a stream" in document["error"]["message"]


async def test_a_client_of_http_1_0_learns_from_the_end_of_the_connection_that_the_answer_is_over() -> None:
    body = json.dumps(invocation()).encode()
    async with served(Echo) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = f"POST /invoke HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        await writer.wait_closed()
    assert json.loads(answer.splitlines()[-1])["metadata"]["done"] is True
