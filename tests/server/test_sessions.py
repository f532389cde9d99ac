"""``/sessions``: lists, conversations, deletion and cancellation, over a real socket."""

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import ClientResponse, ClientSession, web
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from yarl import URL

from agentscope.agent import ReActAgent
from agentscope.errors import SessionBusyError, SessionConflictError, SessionStoreError
from agentscope.memory import InMemoryMemory
from agentscope.message import Msg
from agentscope.runtime import AgentApp, Runtime, SessionContext, runtime
from agentscope.server import ServerRunner, create_app
from agentscope.session import InMemorySessionRepository, SessionRepository, SessionSummary
from agentscope.testing import ScriptedModel
from serving import Echo, Served, invocation, served, settings, until_waiting
from stored import added, memory_of, plain, said, store


def repository_of(server: Served) -> SessionRepository:
    return server.runtime.container.session_repository()


async def ask(server: Served, path: str, method: str = "GET") -> tuple[int, dict[str, Any]]:
    """The status and the JSON of an answer; what every answer has is checked."""
    # The path is sent as it is written: a client's own normalization would hide what a server has to bear.
    url = URL(f"http://127.0.0.1:{server.port}{path}", encoded=True)
    async with server.client.request(method, url) as response:
        assert response.headers["X-Request-Id"]
        assert response.headers["Cache-Control"] == "no-store"
        text = await response.text()
        if response.status >= 400:
            assert json.loads(text)["error"]["request_id"] == response.headers["X-Request-Id"]
        return response.status, json.loads(text) if text else {}


async def refusal(server: Served, path: str, method: str = "GET") -> tuple[int, str, list[str]]:
    """The status, the code and the invalid fields of an answer."""
    status, document = await ask(server, path, method)
    error = document["error"]
    assert error["message"]
    return status, error["code"], [detail["path"] for detail in error.get("details", [])]


class Remembers(AgentApp):
    """The guide's app: an agent whose memory and toolkit are saved in each turn."""

    async def on_startup(self) -> None:
        """Make the agent."""
        self.agent = ReActAgent("Friday", "", runtime.models.main, memory=InMemoryMemory())

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        """One turn."""
        memory, agent = self.agent.memory, self.agent
        await runtime.session.load_session_state(ctx.session_id, memory=memory, toolkit=agent.toolkit)
        async for chunk in agent.stream(msg):
            yield chunk
        await runtime.session.save_session_state(ctx.session_id, memory=memory, toolkit=agent.toolkit)


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_what_an_app_saved_can_be_listed_read_and_deleted(backend: str, tmp_path: Path) -> None:
    session = {"backend": "memory"} if backend == "memory" else {"url": f"sqlite:///{tmp_path}/sessions.db"}
    model = ScriptedModel("hi Ada", "hi again", "hi Bob")
    async with served(Remembers, models={"main": model}, session=session) as server:
        began = datetime.now(UTC) - timedelta(seconds=1)
        for session_id, text in (("ada", "one"), ("ada", "two"), ("bob", "three")):
            await server.lines(invocation(text, session_id))
        status, listed = await ask(server, "/sessions")
        assert (status, listed["next_cursor"]) == (200, None)
        ada, bob = listed["sessions"]
        assert list(ada) == ["session_id", "created_at", "updated_at", "version", "size_bytes"]
        assert (ada["session_id"], ada["version"], bob["session_id"], bob["version"]) == ("ada", 2, "bob", 1)
        assert ada["size_bytes"] > bob["size_bytes"] > 100
        assert ada["created_at"].endswith("Z")
        assert len(ada["created_at"]) == len(said("x").timestamp)
        created, updated = (datetime.fromisoformat(ada[key]) for key in ("created_at", "updated_at"))
        assert began < created <= updated < datetime.now(UTC) + timedelta(seconds=1)
        assert await ask(server, "/sessions/ada") == (200, {**ada, "modules": ["memory", "toolkit"]})
        status, conversation = await ask(server, "/sessions/ada/messages")
        assert (status, conversation["next_cursor"]) == (200, None)
        messages = conversation["messages"]
        assert [list(message) for message in messages] == [
            ["id", "name", "role", "content", "metadata", "timestamp"]
        ] * 4
        assert [message["role"] for message in messages] == ["user", "assistant"] * 2
        assert [Msg.from_dict(message).get_text_content() for message in messages] == [
            *("one", "hi Ada"),
            *("two", "hi again"),
        ]
        assert await ask(server, "/sessions/ada", "DELETE") == (204, {})
        for path, method in [("", "GET"), ("/messages", "GET"), ("", "DELETE")]:
            assert await refusal(server, f"/sessions/ada{path}", method) == (404, "NOT_FOUND", [])
        assert (await ask(server, "/sessions"))[1]["sessions"] == [bob]


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_lists_come_in_pages_in_the_order_of_their_ids(backend: str, tmp_path: Path) -> None:
    session = {"backend": "memory"} if backend == "memory" else {"url": f"sqlite:///{tmp_path}/sessions.db"}
    ids = sorted(["a/b", "ü" * 256, "日本", *(f"s{number}" for number in range(8))])
    async with served(Echo, session=session) as server:
        for session_id in ids:
            await store(repository_of(server), session_id, m=plain({}))
        _, first = await ask(server, "/sessions?limit=5")
        _, second = await ask(server, f"/sessions?limit=5&cursor={quote(first['next_cursor'])}")
        _, third = await ask(server, f"/sessions?limit=5&cursor={quote(second['next_cursor'])}")
    pages = [[summary["session_id"] for summary in page["sessions"]] for page in (first, second, third)]
    assert pages == [ids[:5], ids[5:10], ids[10:]]
    assert third["next_cursor"] is None


async def test_a_page_of_sessions_has_a_hundred_unless_another_number_is_asked_for() -> None:
    async with served(Echo) as server:
        for number in range(101):
            await store(repository_of(server), f"s{number:03}", m=plain({}))
        _, page = await ask(server, "/sessions")
        assert (len(page["sessions"]), page["next_cursor"] is None) == (100, False)
        _, page = await ask(server, "/sessions?limit=101")
        assert (len(page["sessions"]), page["next_cursor"]) == (101, None)


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_a_conversation_of_twenty_thousand_messages_is_read_in_pages(backend: str, tmp_path: Path) -> None:
    session = {"backend": "memory"} if backend == "memory" else {"url": f"sqlite:///{tmp_path}/sessions.db"}
    async with served(Echo, session=session) as server:
        await store(repository_of(server), "s", memory=memory_of())
        await store(repository_of(server), "s", memory=added(0, *(said(str(number)) for number in range(20_000))))
        seen: list[str] = []
        sizes: list[int] = []
        path = "/sessions/s/messages?limit=10000"
        while True:
            _, page = await ask(server, path)
            sizes.append(len(page["messages"]))
            seen += [message["content"] for message in page["messages"]]
            if page["next_cursor"] is None:
                break
            path = f"/sessions/s/messages?limit=7000&cursor={page['next_cursor']}"
        _, usual = await ask(server, "/sessions/s/messages")
    assert sizes == [10_000, 7_000, 3_000]
    assert seen == [str(number) for number in range(20_000)]
    assert len(usual["messages"]) == 1000


async def test_a_page_of_large_messages_ends_at_eight_mebibytes() -> None:
    async with served(Echo) as server:
        await store(repository_of(server), "s", memory=memory_of(*(said("x" * 1024 * 1024) for _ in range(10))))
        _, page = await ask(server, "/sessions/s/messages")
        _, rest = await ask(server, f"/sessions/s/messages?cursor={page['next_cursor']}")
    assert [len(page["messages"]), len(rest["messages"]), rest["next_cursor"]] == [7, 3, None]


async def test_a_conversation_that_was_rewritten_is_to_be_read_from_the_start() -> None:
    async with served(Echo) as server:
        await store(repository_of(server), "s", memory=memory_of(said("1"), said("2"), said("3")))
        _, page = await ask(server, "/sessions/s/messages?limit=2")
        path = f"/sessions/s/messages?limit=2&cursor={page['next_cursor']}"
        assert [message["content"] for message in (await ask(server, path))[1]["messages"]] == ["3"]
        await store(repository_of(server), "s", memory=memory_of(said("all of it in short")))
        assert await refusal(server, path) == (404, "NOT_FOUND", ["cursor"])


ODD_IDS = [
    "a/b",
    "/",
    "..",
    ".",
    "a b",
    "a+b",
    "%",
    "%2F",
    "100%",
    "{x}",
    "ü",
    "💡",
    "?",
    "#",
    "a\\b",
    "messages",
    "~",
]


@pytest.mark.parametrize("session_id", ODD_IDS)
async def test_any_id_that_can_be_invoked_can_be_asked_for(session_id: str) -> None:
    path = f"/sessions/{quote(session_id, safe='')}"
    async with served(Echo) as server:
        await store(repository_of(server), session_id, memory=memory_of(said("hello")))
        status, document = await ask(server, path)
        assert (status, document["session_id"]) == (200, session_id)
        assert (await ask(server, f"{path}/messages"))[1]["messages"][0]["content"] == "hello"
        assert await refusal(server, f"{path}/cancel", "POST") == (404, "NOT_FOUND", [])
        assert (await ask(server, path, "DELETE"))[0] == 204


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("", id="empty"),
        pytest.param("x" * 257, id="long"),
        pytest.param("a%0Ab", id="line feed"),
        pytest.param("%00", id="NUL"),
        pytest.param("a%C2%85b", id="a C1 control character"),
        pytest.param("%FF", id="no UTF-8"),
        pytest.param("%ED%A0%80", id="a surrogate"),
        pytest.param("%zz", id="no percent-encoding"),
        pytest.param("%", id="a percent sign alone"),
    ],
)
@pytest.mark.parametrize(
    ("method", "suffix"), [("GET", ""), ("GET", "/messages"), ("DELETE", ""), ("POST", "/cancel")], ids=str
)
async def test_an_id_that_can_not_be_invoked_is_refused(path: str, method: str, suffix: str) -> None:
    async with served(Echo) as server:
        assert await refusal(server, f"/sessions/{path}{suffix}", method) == (400, "INVALID_REQUEST", ["session_id"])


def cursor(content: object) -> str:
    return urlsafe_b64encode(content if isinstance(content, bytes) else json.dumps(content).encode()).decode()


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("limit=0", ["limit"]),
        ("limit=-1", ["limit"]),
        ("limit=10001", ["limit"]),
        ("limit=1e3", ["limit"]),
        ("limit=+5", ["limit"]),
        ("limit=%EF%BC%91", ["limit"]),
        ("limit=", ["limit"]),
        (f"limit={'9' * 5000}", ["limit"]),
        ("limit=1&limit=2", ["limit"]),
        ("cursor=", ["cursor"]),
        ("cursor=%00", ["cursor"]),
        ("cursor=?", ["cursor"]),
        ("cursor=YQ", ["cursor"]),
        ("cursor=YR==", ["cursor"]),
        (f"cursor={cursor(bytes([255]))}", ["cursor"]),
        (f"cursor={cursor(bytes([0]))}", ["cursor"]),
        ("offset=1&limt=2", ["offset", "limt"]),
        ("cursor=?&limit=x&offset=1", ["offset", "limit", "cursor"]),
        ("%ff=1", ["�"]),
        (f"{'x' * 5000}=1", ["x" * 200]),
    ],
)
@pytest.mark.parametrize("path", ["/sessions", "/sessions/s/messages"])
async def test_a_wrong_parameter_is_named(path: str, query: str, wrong: list[str]) -> None:
    async with served(Echo) as server:
        await store(repository_of(server), "s", memory=memory_of(said("hello")))
        assert await refusal(server, f"{path}?{query}") == (400, "INVALID_REQUEST", wrong)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param([], id="empty"),
        pytest.param({"module": "memory"}, id="an object"),
        pytest.param(["memory", "/content", "1", "x"], id="a position that is no number"),
        pytest.param(["memory", "/content", 0, "x"], id="before the first"),
        pytest.param(["memory", "/content", -5, "x"], id="negative"),
        pytest.param(["memory", "/content", 2**31, "x"], id="too large"),
        pytest.param(["memory", "/content", 2**70, "x"], id="far too large"),
        pytest.param(["memory", "/content", 1, "x"], id="another message"),
        pytest.param(["memory", "/content", 2**31 - 1, "x"], id="after the last"),
        pytest.param(["toolkit", "/content", 1, "x"], id="another module"),
        pytest.param(["memory", "/content", 1, "x", "y"], id="one more"),
    ],
)
async def test_a_place_that_is_not_in_the_conversation_is_refused(content: object) -> None:
    async with served(Echo) as server:
        await store(repository_of(server), "s", memory=memory_of(said("hello")))
        path = f"/sessions/s/messages?cursor={cursor(content)}"
        assert await refusal(server, path) == (400, "INVALID_REQUEST", ["cursor"])


@pytest.mark.parametrize(("path", "method"), [("", "GET"), ("", "DELETE"), ("/cancel", "POST")])
async def test_where_there_are_no_parameters_all_are_refused(path: str, method: str) -> None:
    async with served(Echo) as server:
        await store(repository_of(server), "s", m=plain({}))
        expected = (400, "INVALID_REQUEST", ["force"])
        assert await refusal(server, f"/sessions/s{path}?force=1", method) == expected
        assert (await ask(server, "/sessions/s"))[0] == 200


pieces = st.text(max_size=8).map(lambda text: quote(text.encode("utf-8", "surrogatepass"), safe=""))
raw_bytes = st.binary(max_size=8).map(lambda data: "".join(f"%{byte:02x}" for byte in data))
segments = pieces | raw_bytes | st.text("%/.a2Ff{}~;:@!$&'()*+,=", max_size=12)
cursors = st.binary(max_size=30).map(cursor) | st.recursive(
    st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=5), max_leaves=8
).map(cursor)
parameters = st.tuples(
    st.sampled_from(["limit", "cursor", "x"]) | pieces | raw_bytes,
    st.integers().map(str) | cursors | segments,
).map("=".join)


async def test_no_id_limit_or_cursor_makes_the_server_fail() -> None:
    async with served(Echo) as server:
        await store(repository_of(server), "s", memory=memory_of(said("hello")))
        statuses: set[int] = set()
        wanted: list[tuple[str, str]] = []

        @hypothesis_settings(max_examples=600, deadline=None, database=None)
        @given(
            st.just("s") | segments,
            st.sampled_from([("GET", ""), ("GET", "/messages"), ("DELETE", ""), ("POST", "/cancel"), ("PUT", "")]),
            st.lists(parameters, max_size=3).map("&".join),
        )
        def collect(segment: str, call: tuple[str, str], query: str) -> None:
            wanted.append((call[0], f"/sessions/{segment}{call[1]}" + (f"?{query}" if query else "")))

        collect()
        for method, path in [*wanted, *(("GET", f"/sessions?{path.partition('?')[2]}") for _, path in wanted)]:
            status, document = await ask(server, path, method)
            assert (status < 400) == ("error" not in document)
            statuses.add(status)
            if status == 204:
                await store(repository_of(server), "s", memory=memory_of(said("hello")))
    assert statuses >= {200, 400, 404, 405}
    assert statuses <= {200, 204, 400, 404, 405}


@pytest.mark.parametrize(
    "path",
    [b"/sessions/\xff", b"/sessions/s\xed\xa0\x80/messages", b"/sessions?\xff=1", b"/sessions?cursor=\xff\xfe"],
    ids=["id", "surrogate", "parameter", "cursor"],
)
async def test_bytes_that_are_no_text_are_refused(path: bytes) -> None:
    async with served(Echo) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert json.loads(body)["error"]["code"] == "INVALID_REQUEST"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/sessions", {"GET", "HEAD"}),
        ("PUT", "/sessions/s", {"GET", "HEAD", "DELETE"}),
        ("DELETE", "/sessions/s/messages", {"GET", "HEAD"}),
        ("GET", "/sessions/s/cancel", {"POST"}),
    ],
)
async def test_another_method_is_refused(method: str, path: str, allowed: set[str]) -> None:
    async with served(Echo) as server:
        response = await server.client.request(method, path)
        assert (response.status, (await response.json())["error"]["code"]) == (405, "METHOD_NOT_ALLOWED")
        assert set(response.headers["Allow"].split(",")) == allowed
        assert await refusal(server, "/sessions/s/messages/more", method) == (404, "NOT_FOUND", [])


async def test_head_tells_what_get_would() -> None:
    async with served(Echo) as server:
        await store(repository_of(server), "s", memory=memory_of(said("hello")))
        for path in ("/sessions", "/sessions/s", "/sessions/s/messages"):
            response = await server.client.head(path)
            assert (response.status, await response.read()) == (200, b"")
        assert (await server.client.head("/sessions/other")).status == 404


async def test_it_works_in_another_application_too() -> None:
    site = web.Application()
    rt = Runtime(settings(), app=Echo)
    site.add_subapp("/agent", create_app(rt))
    runner = ServerRunner(site)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        await store(rt.container.session_repository(), "a/b", memory=memory_of(said("hello")))
        async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
            response = await client.get(URL("/agent/sessions/a%2Fb/messages", encoded=True))
            assert [message["content"] for message in (await response.json())["messages"]] == ["hello"]
    finally:
        await runner.cleanup()


class Endless(AgentApp):
    """Says a message for each word, then nothing."""

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        """Wait for ever."""
        for word in (msg.get_text_content() or "").split():
            yield Msg("assistant", word, "assistant")
        self.silent.set()
        await asyncio.Event().wait()

    async def on_startup(self) -> None:
        """Make the event that says that it waits."""
        self.silent = asyncio.Event()


def silent(server: Served) -> asyncio.Event:
    app = server.runtime.app
    assert isinstance(app, Endless)
    return app.silent


async def test_a_cancelled_invocations_stream_ends_with_a_trailer_that_says_so() -> None:
    async with served(Endless) as server:
        response = await server.post(invocation("one", "a/b"))
        assert json.loads(await response.content.readline())["content"] == "one"
        assert await ask(server, "/sessions/a%2Fb/cancel", "POST") == (202, {"session_id": "a/b"})
        trailer = json.loads(await asyncio.wait_for(response.content.read(), 10))
    assert trailer["error"]["code"] == "CANCELLED"
    assert trailer["error"]["message"] == "the invocation was cancelled by a request"
    assert trailer["error"]["request_id"] == response.headers["X-Request-Id"]
    assert trailer["metadata"] == {"done": True, "error": True}


@pytest.mark.parametrize("query", ["", "?stream=false"])
async def test_before_the_first_line_a_cancelled_invocation_has_a_status_of_its_own(query: str) -> None:
    async with served(Endless) as server:
        asking = asyncio.create_task(server.client.post(f"/invoke{query}", json=invocation("")))
        await asyncio.wait_for(silent(server).wait(), 10)
        assert (await ask(server, "/sessions/s1/cancel", "POST"))[0] == 202
        response = await asyncio.wait_for(asking, 10)
        assert (response.status, (await response.json())["error"]["code"]) == (409, "CANCELLED")
        assert "Retry-After" not in response.headers


async def test_the_session_is_free_after_its_invocation_was_cancelled() -> None:
    async with served(Endless) as server:
        first = await server.post(invocation("one"))
        await first.content.readline()
        waiting = asyncio.create_task(server.post(invocation("two")))
        await until_waiting(server.runtime, 1)
        assert (await ask(server, "/sessions/s1/cancel", "POST"))[0] == 202
        second = await asyncio.wait_for(waiting, 10)
        assert json.loads(await second.content.readline())["content"] == "two"
        assert await refusal(server, "/sessions/other/cancel", "POST") == (404, "NOT_FOUND", [])
        assert (await ask(server, "/sessions/s1/cancel", "POST"))[0] == 202
        for response in (first, second):
            assert b'"CANCELLED"' in await asyncio.wait_for(response.content.read(), 10)


async def test_a_session_is_deleted_after_the_invocation_that_runs() -> None:
    proceed = asyncio.Event()

    class Saves(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            memory = InMemoryMemory()
            await runtime.session.load_session_state(ctx.session_id, memory=memory)
            yield msg
            await proceed.wait()
            await memory.add(msg)
            await runtime.session.save_session_state(ctx.session_id, memory=memory)

    async with served(Saves) as server:
        response = await server.post(invocation())
        await response.content.readline()
        deleting = asyncio.create_task(ask(server, "/sessions/s1", "DELETE"))
        proceed.set()
        assert b'"done":true' in await response.content.read()
        assert await asyncio.wait_for(deleting, 10) == (204, {})
        assert await refusal(server, "/sessions/s1") == (404, "NOT_FOUND", [])


async def test_a_session_that_stays_busy_is_not_deleted() -> None:
    async with served(Endless, session={"backend": "memory", "queue_timeout": 0.05}) as server:
        response = await server.post(invocation("one"))
        await response.content.readline()
        assert await refusal(server, "/sessions/s1", "DELETE") == (409, "SESSION_BUSY", [])
        assert (await ask(server, "/sessions/s1/cancel", "POST"))[0] == 202
        assert b'"CANCELLED"' in await asyncio.wait_for(response.content.read(), 10)


EVERY_CALL = [
    ("GET", "/sessions"),
    ("GET", "/sessions/s"),
    ("GET", "/sessions/s/messages"),
    ("DELETE", "/sessions/s"),
    ("POST", "/sessions/s/cancel"),
]


async def test_a_draining_server_still_tells_and_deletes() -> None:
    async with served(Endless) as server:
        await store(repository_of(server), "s", memory=memory_of(said("hello")))
        running = await server.post(invocation("one", "running"))
        await running.content.readline()
        draining = asyncio.create_task(server.runtime.drain(10))
        await asyncio.sleep(0)
        for method, path in EVERY_CALL[:-1]:
            assert (await ask(server, path, method))[0] == (204 if method == "DELETE" else 200)
        assert (await ask(server, "/sessions/running/cancel", "POST"))[0] == 202
        await asyncio.wait_for(draining, 10)
        assert json.loads(await running.content.read())["error"]["code"] == "CANCELLED"


@pytest.mark.parametrize(("method", "path"), EVERY_CALL)
async def test_a_server_whose_runtime_is_stopped_is_not_ready(method: str, path: str) -> None:
    async with served(Echo) as server:
        await server.runtime.shutdown()
        async with server.client.request(method, path) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (503, "NOT_READY")
            assert response.headers["Retry-After"] == "1"


class Down(InMemorySessionRepository):
    """A store that can't be reached."""

    async def list_sessions(
        self, after: str | None = None, limit: int = 100, *, owner: str | None = None
    ) -> Sequence[SessionSummary]:
        """Fail."""
        raise SessionStoreError("postgresql://db.internal: connection refused")

    async def load(self, *args: Any, **kwargs: Any) -> Any:
        """Fail."""
        raise SessionStoreError("postgresql://db.internal: connection refused")

    def snapshot(self) -> Any:
        """Fail."""
        raise SessionStoreError("postgresql://db.internal: connection refused")

    async def take_lease(self, *args: Any, **kwargs: Any) -> Any:
        """Fail."""
        raise SessionStoreError("postgresql://db.internal: connection refused")


@pytest.mark.parametrize(("method", "path"), EVERY_CALL[:4])
@pytest.mark.parametrize("debug", [False, True])
async def test_a_store_that_does_not_answer_is_told_in_the_log_alone(
    method: str, path: str, debug: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(Echo, server={"debug": debug}) as server:
        with server.runtime.override(session_repository=Down()):
            response = await server.client.request(method, path)
            text = await response.text()
    assert response.status == 503
    assert response.headers["Retry-After"] == "1"
    error = json.loads(text)["error"]
    assert error["code"] == "NOT_READY"
    assert "db.internal" not in text
    assert any("db.internal" in line and error["request_id"] in line for line in caplog.messages)


class Fails(AgentApp):
    """Raises what the message says."""

    async def __call__(self, msg: Msg, ctx: SessionContext) -> Msg:
        """Fail."""
        errors: dict[str | None, Exception] = {
            "conflict": SessionConflictError("s1", expected=3, found=4),
            "lease lost": SessionConflictError("s1", expected=3, found=3, lease_lost=True),
            "not loaded": SessionConflictError("s1", expected=None, found=4),
            "busy": SessionBusyError("s1", "another invocation of session 's1' is running"),
            "store": SessionStoreError("postgresql://db.internal: connection refused"),
        }
        raise errors[msg.get_text_content()]


@pytest.mark.parametrize(
    ("error", "status", "code", "message"),
    [
        ("conflict", 409, "SESSION_BUSY", "session 's1' was changed elsewhere; try again"),
        ("lease lost", 409, "SESSION_BUSY", "session 's1' was not kept while the server stood still; try again"),
        ("not loaded", 500, "APP_ERROR", "the app failed; its log has the details"),
        ("busy", 409, "SESSION_BUSY", "another invocation of session 's1' is running"),
        ("store", 503, "NOT_READY", "the session store does not answer; try again"),
    ],
)
async def test_what_a_turn_can_meet_in_the_store_has_its_status(
    error: str, status: int, code: str, message: str
) -> None:
    async with served(Fails) as server:
        response: ClientResponse = await server.post(invocation(error))
        body = (await response.json())["error"]
    assert (response.status, body["code"], body["message"]) == (status, code, message)
    assert ("Retry-After" in response.headers) == (status == 503)


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_conversations_that_are_saved_while_they_are_read_are_never_torn(backend: str, tmp_path: Path) -> None:
    session = {"backend": "memory"} if backend == "memory" else {"url": f"sqlite:///{tmp_path}/sessions.db"}

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(served(Echo, session=session))
        repository = repository_of(server)

        async def save(turn: int) -> None:
            messages = [said(str(turn)) for _ in range(300)]
            await store(repository, "s", a=memory_of(*messages), b=memory_of(*messages))

        async def keep_saving() -> None:
            for turn in range(1, 30):
                await save(turn)

        await save(0)
        saving = asyncio.create_task(keep_saving())
        while not saving.done():
            _, page = await ask(server, "/sessions/s/messages")
            assert len({message["content"] for message in page["messages"]}) == 1
            assert len(page["messages"]) == 600
        await saving
