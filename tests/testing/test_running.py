"""``running`` and ``serving``: an app without its outside world, until the end of a block."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest import IsolatedAsyncioTestCase

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from agentscope.agent import ReActAgent
from agentscope.errors import ForbiddenError, ProjectError, SessionNotFoundError, UnknownNameError, UserError
from agentscope.message import Msg
from agentscope.model import ChatUsage, ModelTimeoutError
from agentscope.runtime import AgentApp, Runtime, SessionContext, runtime
from agentscope.testing import (
    AgentClient,
    AgentClientError,
    FakeToolkit,
    InMemorySessionRepository,
    ScriptedModel,
    project_module,
    project_runtime,
    run_app,
    running,
    serving,
)
from agentscope.tool import Toolkit
from platform_server import PlatformServer
from serving import settings

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"


class Passes(AgentApp):
    """Passes on what the model says."""

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        async for chunk in runtime.models.main.stream([msg]):
            yield Msg("assistant", chunk.text, "assistant")


async def test_a_project_runs_until_the_end_of_the_block() -> None:
    async with running(QUICKSTART, models=ScriptedModel("Hello there")) as rt:
        assert [msg.content async for msg in rt.invoke("hi")] == ["Hello", " there", ""]
    assert rt.state == "stopped"


async def test_a_runtime_of_the_test_s_own_gets_the_fakes() -> None:
    own = Runtime(settings(models={"main": {"provider": "openai", "model": "m", "api_key": "k"}}), app=Passes)
    async with running(own, models={"main": ScriptedModel("yes")}, tools=FakeToolkit()) as rt:
        assert rt is own
        assert [msg.content async for msg in rt.invoke("hi")] == ["yes", ""]


async def test_a_slot_that_nobody_scripted_is_named() -> None:
    own = Runtime(settings(models={"main": {"provider": "openai", "model": "m", "api_key": "k"}}), app=Passes)
    with pytest.raises(AssertionError, match=r"of the slot 'main' was called 1 times: .* to 'hi'; give it one"):
        async with running(own) as rt:
            await anext(rt.invoke("hi"))


async def test_a_model_without_a_reply_fails_the_block_though_the_app_hides_it() -> None:
    class Hides(AgentApp):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> Msg:
            try:
                await runtime.models.main([msg])
            except Exception:
                return Msg("app", "sorry", "assistant")
            return msg

    with pytest.raises(AssertionError, match="it has no reply left to 'hi'"):
        async with serving(Hides, models=ScriptedModel()) as client:
            assert (await client.invoke("hi")).text == "sorry"


async def test_other_providers_are_given_by_name() -> None:
    async with running(Passes, models=ScriptedModel(), authenticator=None) as rt:
        assert rt.container.authenticator() is None
    with pytest.raises(UnknownNameError, match="no provider named 'sesions'"):
        async with running(Passes, sesions=InMemorySessionRepository()):
            pass


async def test_what_is_no_toolkit_is_refused() -> None:
    with pytest.raises(TypeError, match="tools is a list: give a Toolkit"):
        async with running(Passes, tools=[]):  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - the mistake
            pass


@pytest.mark.parametrize(
    ("models", "said"),
    [
        (ScriptedModel("x"), "models is a ScriptedModel: give models by slot"),
        ({"main": ScriptedModel}, "the model of the slot 'main' is a class, ScriptedModel: give an object"),
        ({"main": "Hello"}, "the model of the slot 'main' is a str: give an object with `stream`"),
    ],
    ids=["no slots", "a class", "a text"],
)
def test_what_is_no_model_is_refused(models: Any, said: str) -> None:
    own = Runtime(settings(), app=Passes)
    with pytest.raises(TypeError, match=said), own.override(models=models):
        pass


async def test_the_modules_of_the_app_are_those_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "agentapp.yaml").write_text("models: {}\n")
    (tmp_path / "prices.py").write_text("def price():\n    return 'dear'\n")
    (tmp_path / "app.py").write_text(
        "from agentscope.message import Msg\nfrom agentscope.runtime import AgentApp\nimport prices\n\n\n"
        "class App(AgentApp):\n    async def __call__(self, msg, ctx):\n"
        "        return Msg('app', prices.price(), 'assistant')\n"
    )
    async with running(tmp_path) as rt:
        monkeypatch.setattr(project_module(rt, "prices"), "price", lambda: "cheap")
        assert [msg.content async for msg in rt.invoke("hi")] == ["cheap"]
        with pytest.raises(ModuleNotFoundError):
            project_module(rt, "no_such_module")
    async with running(Passes, models=ScriptedModel()) as rt:
        assert project_module(rt, __name__).Passes is Passes


async def test_a_server_that_an_app_asks_for_by_its_name_is_there() -> None:
    class Asks(AgentApp):
        async def on_startup(self) -> None:
            await self.toolkit.register_mcp_client(runtime.tools.sources["search"])

        def __init__(self) -> None:
            self.toolkit = Toolkit()

        async def __call__(self, msg: Msg, ctx: SessionContext) -> Msg:
            return Msg("assistant", ", ".join(self.toolkit.tools), "assistant")

    def find(query: str) -> str:
        """Find something."""
        return query

    server = {"search": {"transport": "sse", "url": "https://tools.example.com/sse"}}
    for tools, names in ((None, ""), (FakeToolkit(find), ""), (FakeToolkit(find, name="search"), "find")):
        async with running(Runtime(settings(mcp_servers=server), app=Asks), tools=tools) as rt:
            assert [msg.content async for msg in rt.invoke("hi")] == [names]


def test_a_project_tells_nobody_of_itself_and_needs_none_of_its_variables(tmp_path: Path) -> None:
    (tmp_path / "agentapp.yaml").write_text(
        "models:\n"
        "  main: {provider: openai, model: m, api_key: '${A_KEY}', base_url: '${A_URL}'}\n"
        "  other: {provider: openai, model: m, api_key: {file: secrets/openai.txt}}\n"
        "mcp_servers: {search: {transport: sse, url: '${ANOTHER_URL}'}}\n"
        "session: {backend: sql, url: '${A_DATABASE_URL}'}\n"
        "tracing: {endpoint: 'https://traces.example.com'}\n"
        "platform: {endpoint: 'https://platform.example.com'}\n"
    )
    rt = project_runtime(tmp_path, ["session.auto_save=true"])
    assert rt.settings.tracing.endpoint is None
    assert rt.settings.platform.endpoint is None
    assert rt.settings.session.auto_save
    assert rt.settings.models["main"].base_url == "https://not-set.example.com"
    key = rt.settings.models["other"].api_key
    assert key is not None
    assert key.get_secret_value() == "not-set-in-tests"
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "openai.txt").write_text("")
    with pytest.raises(UserError, match="is empty"):
        project_runtime(tmp_path)


async def test_a_session_is_of_whoever_asks() -> None:
    own = [Runtime(settings(session={"backend": "memory", "owner_claim": "sub"}), app=Passes) for _ in range(2)]
    said = await run_app(own[0], "hi", models={}, identity={"sub": "ada"})
    assert said
    with pytest.raises(ForbiddenError):
        await run_app(own[1], "hi", models={})


async def test_a_project_that_can_not_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "agentapp.yaml").write_text("models: {main: {provider: offline}}")
    with pytest.raises(ProjectError, match=r"no app\.py"):
        async with running(tmp_path):
            pass


async def test_a_served_app_answers_as_a_whole_or_as_it_comes() -> None:
    async with serving(Passes, models=ScriptedModel("Hello there", "And again")) as client:
        answer = await client.invoke("hi", session_id="s1", metadata={"a": 1})
        assert (answer.text, answer.usage) == ("Hello there", ChatUsage(0, 2))
        assert [msg.content for msg in answer] == ["Hello", " there", ""]
        assert answer[0].name == answer[:1][0].name == "assistant"
        assert answer.invocation_id
        assert answer.request_id
        stream = client.invoke(Msg("ada", "hi", "user"))
        assert (stream.metadata, stream.invocation_id, stream.request_id) == ({}, None, None)
        assert [msg.content async for msg in stream] == ["And", " again", ""]
        assert stream.metadata["done"]
        assert await anext(stream, None) is None
        assert "Hello" in repr(answer)


async def test_a_client_reads_lines_of_any_length() -> None:
    async with serving(Passes, models=ScriptedModel("x" * 300_000)) as client:
        assert len((await client.invoke("hi")).text) == 300_000


class Fails(AgentApp):
    """Fails as it is told."""

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        if msg.content == "late":
            yield Msg("assistant", "one", "assistant")
        raise ModelTimeoutError("main")


@pytest.mark.parametrize(("text", "status", "said"), [("early", 502, 0), ("late", 200, 1)])
async def test_an_error_has_its_code_and_what_was_said_before_it(text: str, status: int, said: int) -> None:
    async with serving(Fails) as client:
        with pytest.raises(AgentClientError, match="MODEL_ERROR: model 'main'") as failed:
            await client.invoke(text)
    error = failed.value
    assert (error.status, error.code, len(error.messages)) == (status, "MODEL_ERROR", said)
    assert error.request_id


async def test_an_invalid_request_names_its_fields() -> None:
    async with serving(Passes) as client:
        with pytest.raises(AgentClientError, match=r"400 INVALID_REQUEST: .*; session_id: must not be empty"):
            await client.invoke("hi", session_id="")
        with pytest.raises(AgentClientError, match=r"400 INVALID_REQUEST: .*; session_id: ") as failed:
            await client.invoke("hi", session_id="x" * 300)
    assert failed.value.details[0]["path"] == "session_id"


class Waits(AgentApp):
    """Says that it waits, and does."""

    def __init__(self) -> None:
        self.left = 0

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        yield Msg("assistant", "waiting", "assistant")
        try:
            await asyncio.Event().wait()
        finally:
            self.left += 1


async def test_an_invocation_is_cancelled() -> None:
    async with serving(Waits) as client:
        stream = client.invoke("hi", session_id="a/b")
        await anext(stream)
        await client.cancel("a/b")
        with pytest.raises(AgentClientError) as failed:
            await anext(stream)
        assert failed.value.code == "CANCELLED"


async def test_a_client_that_leaves_cancels_its_invocation_also_at_the_end_of_the_block() -> None:
    async with serving(Waits) as client:
        async with client.invoke("hi", session_id="s1") as stream:
            assert (await anext(stream)).content == "waiting"
        forgotten = client.invoke("hi", session_id="s2")
        await anext(forgotten)
        app = client.runtime.app
        assert isinstance(app, Waits)
    assert app.left == 2


class Remembers(AgentApp):
    """An agent that remembers."""

    async def on_startup(self) -> None:
        self.agent = ReActAgent("Friday", "", runtime.models.main)

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        await runtime.session.load_session_state(ctx.session_id, memory=self.agent.memory)
        yield await self.agent(msg)
        await runtime.session.save_session_state(ctx.session_id, memory=self.agent.memory)


async def test_sessions_are_listed_read_and_deleted() -> None:
    async with serving(Remembers, models=ScriptedModel("one")) as client:
        await client.invoke("first", session_id="a/b")
        (session,) = await client.sessions()
        assert session["session_id"] == "a/b"
        assert (await client.session("a/b"))["modules"] == ["memory"]
        assert [msg.content for msg in await client.messages("a/b")] == ["first", "one"]
        await client.delete("a/b")
        with pytest.raises(AgentClientError, match="404"):
            await client.session("a/b")


async def test_a_restart_finds_the_sessions() -> None:
    sessions, model = InMemorySessionRepository(), ScriptedModel("one", "two")
    for text in ("first", "second"):
        async with running(Remembers, models=model, sessions=sessions) as rt:
            _ = [msg async for msg in rt.invoke(text, session_id="s1")]
    assert [msg.content for msg in model.calls[1].messages] == ["first", "one", "second"]
    with pytest.raises(SessionNotFoundError):
        async with running(Remembers, models=model) as rt:
            await rt.session.load_session_state("s1", allow_not_exist=False)


async def test_health_and_readiness_are_told() -> None:
    async with serving(Passes) as client:
        assert (await client.health())["status"] == "healthy"
        assert (await client.ready())["status"] == "ready"
        await client.runtime.drain()
        assert (await client.ready())["status"] != "ready"
        with pytest.raises(AgentClientError, match="404 NOT_FOUND"):
            await client.session("nobody")


async def test_an_answer_in_another_form_is_told_as_it_is() -> None:
    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=502, text="a proxy's page")

    async def cut(request: web.Request) -> web.Response:
        return web.Response(text=json.dumps(Msg("assistant", "one", "assistant").to_dict()))

    proxy = web.Application()
    proxy.add_routes([web.get("/health", refuse), web.post("/invoke", cut)])
    async with running(Passes) as rt, TestServer(proxy) as server, ClientSession(server.make_url("/")) as http:
        client = AgentClient(http, str(server.make_url("/")), rt)
        with pytest.raises(AgentClientError, match="502 : a proxy's page"):
            await client.health()
        with pytest.raises(AgentClientError, match="CUT_SHORT: the stream ended without its trailer") as failed:
            await client.invoke("hi")
    assert [msg.content for msg in failed.value.messages] == ["one"]


async def test_a_token_is_sent() -> None:
    token = "a-token-of-thirty-two-characters!"
    auth = {"tokens": [token]}
    async with serving(Runtime(settings(server={"auth": auth}), app=Passes), models=ScriptedModel("yes")) as client:
        with pytest.raises(AgentClientError, match="401 UNAUTHORIZED"):
            await client.invoke("hi")
        client.token = token
        assert (await client.invoke("hi")).text == "yes"


class TestWithUnittest(IsolatedAsyncioTestCase):
    """The same without pytest."""

    async def asyncSetUp(self) -> None:
        self.model = ScriptedModel()
        self.client = await self.enterAsyncContext(serving(QUICKSTART, models=self.model))

    async def test_the_app_answers(self) -> None:
        self.model.add("Hello", "Again")
        assert (await self.client.invoke("hi")).text == "Hello"
        assert self.model.replies_left == 1


async def test_a_runtime_of_the_test_s_own_that_names_a_platform_is_served_and_the_platform_not_told() -> None:
    async with PlatformServer() as platform:
        own = Runtime(settings(platform={"endpoint": platform.endpoint}), app=Passes)
        async with serving(own, models=ScriptedModel("yes")) as client:
            assert (await client.invoke("hi")).text == "yes"
        assert platform.requests == []
