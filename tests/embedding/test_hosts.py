"""Projects in an aiohttp application of somebody else's."""

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.typedefs import Handler

from agentscope.errors import RuntimeNotReadyError
from agentscope.message import Msg
from agentscope.runtime import AgentApp, Runtime, Service, SessionContext, runtime
from agentscope.server import SERVICE, ServerRunner, create_app, setup
from serving import invocation, settings

_HELPER = "NAME = {name!r}\n"
_APP = """
import asyncio

from agentscope.message import Msg
from agentscope.runtime import AgentApp, runtime

import names


class App(AgentApp):
    async def on_startup(self):
        asyncio.get_running_loop().events.append(f"{names.NAME} starts")

    async def __call__(self, msg, ctx):
        async for chunk in runtime.models.main.stream([msg]):
            if chunk.text:
                yield Msg(names.NAME, chunk.text, "assistant")

    async def on_shutdown(self):
        asyncio.get_running_loop().events.append(f"{names.NAME} stops")
"""


def project(folder: Path, name: str) -> Path:
    """A project whose app answers with its name and what its model says, and notes its life."""
    folder = folder / name
    folder.mkdir()
    (folder / "names.py").write_text(_HELPER.format(name=name))
    (folder / "app.py").write_text(_APP)
    (folder / "agentapp.yaml").write_text(
        f"models: {{main: {{provider: offline, script: [{{reply: of-{name}}}]}}}}\nsession: {{backend: memory}}\n"
    )
    return folder


@pytest.fixture
async def events() -> list[str]:
    """What happened, in order."""
    loop: Any = asyncio.get_running_loop()
    noted = list[str]()
    loop.events = noted
    return noted


@web.middleware
async def _who_are_you(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.headers.get("X-Host-Key") != "sesame":
        raise web.HTTPForbidden(text="the host does not know you")
    response = await handler(request)
    if not response.prepared:
        response.headers["X-Host"] = "was here"
    return response


async def _hello(request: web.Request) -> web.Response:
    return web.Response(text="hello from the host")


def host(events: list[str]) -> web.Application:
    """An application with a route, a middleware that lets few in, and a resource of its own."""

    async def resource(_: web.Application) -> AsyncIterator[None]:
        events.append("host opens")
        yield
        events.append("host closes")

    app = web.Application(middlewares=[_who_are_you])
    app.router.add_get("/hello", _hello)
    app.cleanup_ctx.append(resource)
    return app


@asynccontextmanager
async def served(app: web.Application) -> AsyncGenerator[ClientSession]:
    """The host as aiohttp runs any application, and a client that it lets in."""
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with ClientSession(address, headers={"X-Host-Key": "sesame"}) as client:
            yield client
    finally:
        await runner.cleanup()


async def said(client: ClientSession, path: str) -> tuple[str, str]:
    """Who answers at a path, and what."""
    async with client.post(f"{path}/invoke", json=invocation(), params={"stream": "false"}) as response:
        assert response.status == 200, await response.text()
        messages = (await response.json())["messages"]
        return messages[0]["name"], "".join(message["content"] for message in messages)


async def test_a_host_mounts_two_projects_beside_its_own_routes_and_stops_them_in_order(
    tmp_path: Path, events: list[str]
) -> None:
    app = host(events)
    mounted = {name: create_app(Runtime.from_project(project(tmp_path, name))) for name in ("one", "two")}
    app.add_subapp("/a", mounted["one"])
    app.add_subapp("/b/deep", mounted["two"])
    async with served(app) as client:
        answers = await asyncio.gather(*(said(client, path) for path in ("/a", "/b/deep") * 5))
        assert answers == [("one", "of-one"), ("two", "of-two")] * 5
        async with client.get("/hello") as response:
            assert (await response.text(), response.headers["X-Host"]) == ("hello from the host", "was here")
        async with client.get("/nothing") as response:
            assert (response.status, await response.text()) == (404, "404: Not Found")
        for path in ("/a/nothing", "/a", "/a/"):
            async with client.get(path) as response:
                assert (await response.json())["error"]["code"] == "NOT_FOUND"
        async with client.get("/a/openapi.json") as response:
            assert (await response.json())["servers"] == [{"url": "/a"}]
        for path in ("/hello", "/a/health", "/b/deep/sessions"):
            async with client.get(path, headers={"X-Host-Key": "no"}) as response:
                assert (response.status, await response.text()) == (403, "the host does not know you")
        by_code = [msg.content async for msg in mounted["one"][SERVICE].runtime.invoke("hello")]
        assert by_code == ["of-one"]
    # The order is aiohttp's: an application's own resources, then those of the mounted ones as they were added.
    assert events == ["host opens", "one starts", "two starts", "host closes", "one stops", "two stops"]


async def test_the_routes_can_be_the_hosts_own(tmp_path: Path, events: list[str]) -> None:
    app = host(events)
    service = setup(app, Runtime.from_project(project(tmp_path, "one")), prefix="/agent")
    assert app[SERVICE] is service
    async with served(app) as client:
        assert await said(client, "/agent") == ("one", "of-one")
        async with client.get("/hello") as response:
            assert await response.text() == "hello from the host"
        async with client.get("/agent/sessions/none") as response:
            assert (response.status, (await response.json())["error"]["code"]) == (404, "NOT_FOUND")
            assert response.headers["X-Host"] == "was here"
        async with client.get("/agent/nothing") as response:
            assert (response.status, await response.text()) == (404, "404: Not Found")
        async with client.post("/agent/invoke", json={}) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (400, "INVALID_REQUEST")
    assert events == ["host opens", "one starts", "one stops", "host closes"]


async def test_with_a_route_that_nobody_would_protect_it_does_not_start() -> None:
    runtime = Runtime(settings(), app=_Echo)
    app = create_app(runtime)
    app.router.add_get("/admin", _hello)
    with pytest.raises(RuntimeError, match="a route was added to the application of create_app: add it to the one"):
        await web.AppRunner(app).setup()
    assert runtime.state == "new"


@pytest.mark.parametrize("prefix", ["", "/agent"])
async def test_pages_that_may_call_the_kernel_are_told_so_and_the_hosts_answers_stay_as_they_are(prefix: str) -> None:
    app = web.Application()
    app.router.add_get("/hello", _hello)
    page = {"Origin": "https://page.example.com"}
    setup(app, Runtime(settings(server={"cors_origins": [page["Origin"]]}), app=_Echo), prefix=prefix)
    async with served(app) as client:
        async with client.options(
            f"{prefix}/invoke", headers={**page, "Access-Control-Request-Method": "POST"}
        ) as told:
            assert (told.status, told.headers["Access-Control-Allow-Origin"]) == (204, page["Origin"])
        async with client.post(f"{prefix}/invoke", json=invocation(), headers=page) as told:
            assert told.headers["Access-Control-Allow-Origin"] == page["Origin"]
        async with client.options(f"{prefix}/invoke") as told:
            assert told.status == 405
        async with client.get("/hello", headers=page) as own:
            assert "Access-Control-Allow-Origin" not in own.headers


def test_objects_of_the_wrong_kind_are_named() -> None:
    runtime: Any = Runtime(settings(), app=_Echo)
    app: Any = web.Application()
    with pytest.raises(TypeError, match=r"'sales' is no runtime: give Runtime\.from_project\(folder\)"):
        create_app("sales")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - the mistake
    with pytest.raises(TypeError, match="is no application: setup"):
        setup(runtime, app)
    with pytest.raises(TypeError, match="a message is a text or a Msg, not a int"):
        runtime.invoke(5)


def test_one_application_has_one_service_and_its_prefix_is_a_path() -> None:
    app = web.Application()
    with pytest.raises(ValueError, match="begin it with a slash"):
        setup(app, Runtime(settings(), app=_Echo), prefix="agent")
    with pytest.raises(ValueError, match="end it without"):
        setup(app, Runtime(settings(), app=_Echo), prefix="/agent/")
    setup(app, Runtime(settings(), app=_Echo), prefix="/agent")
    with pytest.raises(ValueError, match="add_subapp"):
        setup(app, Runtime(settings(), app=_Echo), prefix="/other")


async def test_a_kernel_touches_nothing_global(tmp_path: Path, events: list[str]) -> None:
    def state() -> list[object]:
        root, ours = logging.getLogger(), logging.getLogger("agentscope")
        return [
            *((logger.level, list(logger.handlers), logger.propagate, logger.disabled) for logger in (root, ours)),
            {number: signal.getsignal(number) for number in signal.valid_signals()},
            type(asyncio.get_running_loop()),
            asyncio.get_running_loop().get_exception_handler(),
            sys.excepthook,
            sys.unraisablehook,
            list(sys.path),
            list(sys.path_hooks),
            list(sys.argv),
        ]

    before, importers = state(), list(sys.meta_path)
    app = web.Application()
    app.add_subapp("/a", create_app(Runtime.from_project(project(tmp_path, "one"))))
    async with served(app) as client:
        assert await said(client, "/a") == ("one", "of-one")
        assert state() == before
        # One for the project's own modules, and nothing else.
        assert [type(each).__name__ for each in sys.meta_path if each not in importers] == ["ProjectModules"]
    assert state() == before
    assert sys.meta_path == importers


async def test_a_hosts_own_tests_go_on_with_aiohttps_test_server(tmp_path: Path, events: list[str]) -> None:
    app = host(events)
    app.add_subapp("/a", create_app(Runtime.from_project(project(tmp_path, "one"))))
    async with TestClient(TestServer(app), headers={"X-Host-Key": "sesame"}) as client:
        assert (await client.get("/hello")).status == 200
        response = await client.post("/a/invoke", json=invocation())
        assert b"of-one" in await response.read()


async def test_a_start_that_fails_is_the_hosts_and_closes_what_was_opened(tmp_path: Path, events: list[str]) -> None:
    app = web.Application()
    for name in ("one", "two"):
        app.add_subapp(f"/{name}", create_app(Runtime.from_project(project(tmp_path, name))))
    (tmp_path / "two" / "app.py").write_text("raise ValueError('not today')")
    runner = ServerRunner(app)
    with pytest.raises(Exception, match=r"app\.py:1: ValueError: not today"):
        await runner.setup()
    await runner.cleanup()
    assert events == ["one starts", "one stops"]


async def test_a_runtime_that_the_host_has_started_stays_the_hosts() -> None:
    async with Runtime(settings(), app=_Echo) as started:
        app = web.Application()
        app.add_subapp("/a", create_app(started))
        async with served(app) as client, client.post("/a/invoke", json=invocation()) as response:
            assert response.status == 200
        assert started.state == "running"
        assert [msg.content async for msg in started.invoke("still here")] == ["still here"]


async def test_one_mounted_project_is_reloaded_and_the_other_is_not(tmp_path: Path, events: list[str]) -> None:
    app = web.Application()
    services: dict[str, Service] = {}
    for name in ("one", "two"):
        app.add_subapp(f"/{name}", mounted := create_app(Runtime.from_project(project(tmp_path, name))))
        services[name] = mounted[SERVICE]
    async with served(app) as client:
        other = services["two"].runtime
        (tmp_path / "one" / "names.py").write_text(_HELPER.format(name="renamed"))
        await services["one"].reload()
        assert await said(client, "/one") == ("renamed", "of-one")
        assert await said(client, "/two") == ("two", "of-two")
        assert services["two"].runtime is other
        services["one"].instance.act("restart")
        assert await said(client, "/one") == ("renamed", "of-one")


class _Echo(AgentApp):
    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        yield Msg("echo", msg.get_text_content() or "", "assistant")


async def test_without_http_two_projects_answer_side_by_side(tmp_path: Path, events: list[str]) -> None:
    async with (
        Runtime.from_project(project(tmp_path, "one")) as one,
        Runtime.from_project(project(tmp_path, "two")) as two,
    ):

        async def ask(kernel: Runtime) -> list[object]:
            return [msg.content async for msg in kernel.invoke("hello", session_id="s1")]

        assert await asyncio.gather(*(ask(kernel) for kernel in (one, two) * 5)) == [["of-one"], ["of-two"]] * 5
        with pytest.raises(RuntimeNotReadyError, match="2 runtimes are live"):
            _ = runtime.models


async def test_in_a_notebook_each_cell_finds_the_runtime_of_the_one_before(tmp_path: Path, events: list[str]) -> None:
    folder = project(tmp_path, "one")

    async def first_cell() -> None:
        await runtime.initialize(folder)

    async def second_cell() -> list[object]:
        return [msg.content async for msg in runtime.invoke("hello")]

    async def third_cell() -> str:
        response = await runtime.models.main([Msg("user", "hello", "user")])
        return "".join(block["text"] for block in response.content if block["type"] == "text")

    async def last_cell() -> None:
        await runtime.shutdown()

    # A notebook runs each cell in a task, and so in a context, of its own.
    await asyncio.create_task(first_cell())
    assert await asyncio.create_task(second_cell()) == ["of-one"]
    assert await asyncio.create_task(third_cell()) == "of-one"
    await asyncio.create_task(last_cell())
    assert not runtime.is_initialized


async def test_a_runtime_for_the_process_is_initialized_once_though_two_cells_want_to(
    tmp_path: Path, events: list[str]
) -> None:
    folder = project(tmp_path, "one")
    outcomes = await asyncio.gather(runtime.initialize(folder), runtime.initialize(folder), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Runtime", "RuntimeNotReadyError"]
    await runtime.shutdown()
    await runtime.initialize(folder)
    await runtime.shutdown()
