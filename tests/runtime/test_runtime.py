"""The runtime: start and stop in order, replacement of providers, and the `runtime` name that apps import."""

import asyncio
import contextvars
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import pytest
from dependency_injector import providers

from agentscope.errors import GraphError, ProjectError, RuntimeNotReadyError, UnknownNameError, UserError
from agentscope.message import Msg
from agentscope.model import ChatModel
from agentscope.runtime import AgentApp, Runtime, SessionContext, runtime
from agentscope.session import Claim, InMemorySessionRepository, ModuleChange, ModuleHead, SessionRepository
from agentscope.testing import ScriptedModel
from serving import Echo, settings


class Asks(AgentApp):
    """Answers with what the model in slot main says."""

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        yield Msg("assistant", (await runtime.models.main([msg])).text, "assistant")


async def ask(rt: Runtime, text: str = "hi") -> str:
    return "".join([str(msg.content) async for msg in rt.invoke(text)])


async def test_a_model_can_be_replaced_before_and_after_the_start() -> None:
    rt = Runtime(settings(), app=Asks)
    with rt.override(models={"main": ScriptedModel("before")}):
        async with rt:
            assert await ask(rt) == "before"
            with rt.override(models={"main": ScriptedModel("after")}):
                assert await ask(rt) == "after"


async def test_what_was_replaced_comes_back() -> None:
    async with Runtime(settings(), app=Asks) as rt:
        with rt.override(models={"main": ScriptedModel("fake")}):
            assert await ask(rt) == "fake"
        assert await ask(rt, "the real one echoes") == "the real one echoes"


async def test_a_provider_of_the_container_can_be_overridden_directly() -> None:
    rt = Runtime(settings(), app=Asks)
    model: Any = rt.container.models.main
    model.override(ScriptedModel("before"))
    async with rt:
        assert await ask(rt) == "before"
        model.override(ScriptedModel("after"))
        assert await ask(rt) == "after"


async def test_the_session_store_follows_its_repository() -> None:
    fake = InMemorySessionRepository()
    lease = await fake.take_lease(Claim("s", "test"), 15, waits=False)
    assert lease is not None
    await fake.save(lease, {"a": ModuleChange(ModuleHead("1"))}, expected=lease.revision)
    await fake.release_leases([lease.claim])
    async with Runtime(settings(), app=Asks) as rt:
        store = rt.session
        assert await store.load_session_state("s") is None
        with rt.override(session_repository=fake):
            assert dict(await store.load_session_state("s") or {}) == {"a": 1}
        assert await store.load_session_state("s") is None


async def test_a_provider_overridden_before_the_start_is_not_opened() -> None:
    bad = settings(session={"backend": "sql", "url": "sqlite:////nowhere/at/all.db"})
    with Runtime(bad, app=Asks).override(session_repository=InMemorySessionRepository()) as rt:
        async with rt:
            assert await rt.session.load_session_state("s") is None


@pytest.mark.parametrize(
    ("replacements", "message"),
    [
        ({"models": {"mian": ScriptedModel()}}, "no model slot named 'mian'; did you mean 'main'?"),
        ({"sesion_repository": 1}, "no provider named 'sesion_repository'; did you mean 'session_repository'?"),
    ],
    ids=["slot", "provider"],
)
async def test_overriding_an_unknown_name_is_an_error_and_replaces_nothing(
    replacements: dict[str, Any], message: str
) -> None:
    rt = Runtime(settings(), app=Asks)
    with pytest.raises(UnknownNameError, match=message), rt.override(settings=1, **replacements):
        pass
    assert rt.container.settings() is rt.settings


async def test_a_replacement_that_is_no_repository_is_refused() -> None:
    async with Runtime(settings(), app=Asks) as rt:
        with pytest.raises(TypeError, match="a str is no SessionRepository"), rt.override(session_repository="text"):
            pass


def test_the_slots_behave_like_a_mapping_and_like_attributes() -> None:
    rt = Runtime(settings(models={"main": {"provider": "offline"}, "small": {"provider": "offline"}}))
    assert list(rt.models.keys()) == ["main", "small"]
    assert "main" in rt.models
    assert "big" not in rt.models
    assert rt.models.main is rt.models["main"]
    assert isinstance(rt.models.main, ChatModel)
    assert not hasattr(rt.models, "big")
    with pytest.raises(
        UnknownNameError, match=r"no model slot named 'smal'; did you mean 'small'\? \(there are: main, small\)"
    ):
        _ = rt.models.smal
    with pytest.raises(KeyError):
        _ = rt.models["big"]


@pytest.mark.parametrize("messages", ["hello", Msg("u", "hello", "user")], ids=["text", "message"])
async def test_a_model_that_is_not_given_a_list_says_so(messages: Any) -> None:
    rt = Runtime(settings())
    with pytest.raises(TypeError, match=r"write \[msg\]"):
        rt.models.main.stream(messages)
    with pytest.raises(TypeError, match=r"write \[msg\]"):
        await rt.models.main(messages)


async def test_everything_closes_in_reverse_order_and_failures_come_together() -> None:
    order: list[str] = []

    class Model(ScriptedModel):
        async def aclose(self) -> None:
            order.append("model closed")
            raise OSError("model")

    def make(slot: str, settings: object) -> Model:
        return Model()

    @asynccontextmanager
    async def backend(settings: Any, project: Path) -> AsyncGenerator[SessionRepository, None]:
        order.append("sessions opened")
        yield InMemorySessionRepository()
        order.append("sessions closed")

    class App(AgentApp):
        async def on_startup(self) -> None:
            order.append("app started")

        async def on_shutdown(self) -> None:
            assert await runtime.session.load_session_state("s") is None
            order.append("app stopped")
            raise ValueError("app")

    with adapters(models={"ours": make}, session_backends={"ours": backend}):
        rt = Runtime(
            settings(models={"main": {"provider": "ours", "model": "m"}}, session={"backend": "ours"}), app=App
        )
        await rt.initialize()
        with pytest.raises(ExceptionGroup) as caught:
            await rt.shutdown()
    assert order == ["sessions opened", "app started", "app stopped", "model closed", "sessions closed"]
    assert [repr(failure) for failure in caught.value.exceptions] == ["ValueError('app')", "OSError('model')"]
    assert [failure.__notes__ for failure in caught.value.exceptions] == [
        ["while closing: on_shutdown"],
        ["while closing: model 'main'"],
    ]
    assert not rt.is_initialized


async def test_what_was_opened_is_closed_when_a_later_step_fails() -> None:
    order: list[str] = []

    @asynccontextmanager
    async def backend(settings: Any, project: Path) -> AsyncGenerator[SessionRepository, None]:
        yield InMemorySessionRepository()
        order.append("closed")

    class App(AgentApp):
        async def on_startup(self) -> None:
            raise ValueError("boom")

    with adapters(session_backends={"ours": backend}):
        with pytest.raises(ProjectError, match="ValueError: boom"):
            await Runtime(settings(session={"backend": "ours"}), app=App).initialize()
    assert order == ["closed"]
    assert not runtime.is_initialized


async def test_why_it_could_not_start_is_not_hidden_by_what_does_not_close(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @asynccontextmanager
    async def backend(settings: Any, project: Path) -> AsyncGenerator[SessionRepository, None]:
        yield InMemorySessionRepository()
        raise OSError("while closing")

    class App(AgentApp):
        async def on_startup(self) -> None:
            raise ValueError("boom")

    with adapters(session_backends={"ours": backend}):
        with pytest.raises(ProjectError, match="ValueError: boom"):
            await Runtime(settings(session={"backend": "ours"}), app=App).initialize()
    assert "while closing" in caplog.text


@contextmanager
def adapters(**groups: dict[str, Any]) -> Generator[None, None, None]:
    """Installed packages that bring adapters by entry points: metadata on the path, as pip writes it."""
    module = ModuleType("brought_by_a_package")
    lines: list[str] = []
    for group, named in groups.items():
        lines.append(f"[agentscope.{group}]")
        for name, adapter in named.items():
            setattr(module, f"{group}_{name}", adapter)
            lines.append(f"{name} = {module.__name__}:{group}_{name}")
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        metadata = Path(folder) / "brought-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text("\n".join(lines))
        patch.setattr(sys, "path", [folder, *sys.path])
        patch.setitem(sys.modules, module.__name__, module)
        yield


def ours(*replies: str) -> Any:
    """An adapter of a package: a factory of scripted models."""

    def make(slot: str, settings: object) -> ScriptedModel:
        return ScriptedModel(*(f"{slot} of {reply}" for reply in replies))

    return make


async def test_a_package_adds_an_adapter_by_an_entry_point() -> None:
    with adapters(models={"ours": ours("ours")}):
        async with Runtime(settings(models={"main": {"provider": "ours", "model": "m"}}), app=Asks) as rt:
            assert await ask(rt) == "main of ours"


async def test_an_adapter_that_can_not_be_called_is_an_error_at_start() -> None:
    with adapters(models={"ours": object}):
        with pytest.raises(UserError, match=r"models\.main\.provider: the adapter 'ours' can't be called with"):
            await Runtime(settings(models={"main": {"provider": "ours", "model": "m"}}), app=Asks).initialize()


async def test_an_unknown_provider_is_an_error_at_start_before_anything_opens(tmp_path: Path) -> None:
    wrong = settings(models={"main": {"provider": "opnai", "model": "m"}}, session={"backend": "sql"})
    with pytest.raises(UserError, match=r"models\.main\.provider: no adapter named 'opnai'; did you mean 'openai'\?"):
        await Runtime(wrong, project=tmp_path, app=Asks).initialize()
    assert not (tmp_path / ".agentscope").exists()


async def test_a_wrong_graph_is_an_error_at_start_that_names_the_provider() -> None:
    rt = Runtime(settings(), app=Asks)
    session: Any = rt.container.session
    session.override(providers.Singleton(InMemorySessionRepository, nonsense=1))
    with pytest.raises(GraphError, match="provider 'session'"):
        await rt.initialize()


def synchronous(*_: object) -> None:
    """A method that should have been asynchronous."""


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        pytest.param(type("App", (), {}), "class App must derive from AgentApp", id="not an app"),
        pytest.param(
            type("App", (AgentApp,), {"__call__": synchronous}),
            "App.__call__ must be asynchronous: write `async def __call__",
            id="synchronous call",
        ),
        pytest.param(
            type("App", (AgentApp,), {"on_startup": synchronous}),
            "App.on_startup must be asynchronous",
            id="synchronous hook",
        ),
    ],
)
async def test_an_app_that_can_not_serve_is_refused_at_start(cls: type[AgentApp], message: str) -> None:
    with pytest.raises(ProjectError, match=message.replace("(", r"\(")):
        await Runtime(settings(), app=cls).initialize()


async def test_a_decorated_call_is_taken_when_what_it_wraps_is_asynchronous() -> None:
    import functools

    class App(AgentApp):
        pass

    @functools.wraps(Echo.__call__)
    def call(self: App, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        return Echo()(msg, ctx)

    type.__setattr__(App, "__call__", call)
    async with Runtime(settings(), app=App) as rt:
        assert await ask(rt) == "hi"


async def test_the_runtime_can_not_be_used_before_it_is_started() -> None:
    with pytest.raises(RuntimeNotReadyError, match=r"`await runtime\.initialize\(project\)`"):
        _ = runtime.models
    assert not runtime.is_initialized
    await runtime.shutdown()


async def test_the_only_runtime_of_the_process_is_the_one_meant() -> None:
    async with Runtime(settings(), app=Echo) as rt:
        assert runtime.settings is rt.settings
        assert runtime.container is rt.container
        assert runtime.is_initialized
        with runtime.override(models={"main": ScriptedModel("fake")}):
            assert (await runtime.models.main([Msg("u", "hi", "user")])).text == "fake"


async def test_with_two_runtimes_each_apps_code_sees_its_own_and_others_must_say_which() -> None:
    async with Runtime(settings(), app=Asks) as one, Runtime(settings(), app=Asks) as two:
        with one.override(models={"main": ScriptedModel("one")}), two.override(models={"main": ScriptedModel("two")}):
            assert list(await asyncio.gather(ask(one), ask(two))) == ["one", "two"]
        with pytest.raises(RuntimeNotReadyError, match="2 runtimes are live"):
            _ = runtime.models


async def test_on_startup_runs_with_the_runtime_current_and_leaves_no_trace_in_the_callers_context() -> None:
    seen: list[object] = []

    class App(AgentApp):
        def __init__(self) -> None:
            self.model = runtime.models.main

        async def on_startup(self) -> None:
            seen.append(runtime.settings)

        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            yield Msg("a", (await self.model([msg])).text, "assistant")

    async with Runtime(settings(), app=Echo), Runtime(settings(), app=App) as rt:
        before = contextvars.copy_context()
        assert seen == [rt.settings]
        assert all(value is not rt for value in before.values())
        with rt.override(models={"main": ScriptedModel("a later override is seen")}):
            assert await ask(rt) == "a later override is seen"


async def test_a_project_is_run_from_a_script(tmp_path: Path) -> None:
    (tmp_path / "agentapp.yaml").write_text("models: {main: {provider: offline}}\n")
    (tmp_path / "app.py").write_text("from agentscope.runtime import AgentApp\nclass App(AgentApp): pass\n")
    await runtime.initialize(tmp_path)
    try:
        assert (await runtime.models.main([Msg("u", "hello", "user")])).text == "hello"
        assert [msg async for msg in runtime.invoke("hi")] == []
    finally:
        await runtime.shutdown()
    assert not runtime.is_initialized


async def test_a_projects_variables_may_be_given_for_a_test(tmp_path: Path) -> None:
    (tmp_path / "agentapp.yaml").write_text(
        "models: {main: {provider: openai, model: m, api_key: '${KEY_OF_NOBODY}'}}"
    )
    rt = Runtime.from_project(tmp_path, environment={"KEY_OF_NOBODY": "not used"})
    with rt.override(models={"main": ScriptedModel("no vendor")}):
        assert (await rt.models.main([Msg("u", "hi", "user")])).text == "no vendor"


async def test_a_runtime_starts_once() -> None:
    async with Runtime(settings(), app=Echo) as rt:
        with pytest.raises(RuntimeNotReadyError, match="make a new one"):
            await rt.initialize()
