"""The pytest plugin. Every run of pytest imports it: it imports the kernel when the first of its fixtures is used."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import pytest

if TYPE_CHECKING:
    from agentscope.model import ChatModel
    from agentscope.runtime import Runtime
    from agentscope.testing import FakeToolkit, InMemorySessionRepository, NetworkGuard, ScriptedModel

_MARK = "agentscope"
RECORD = "--agentscope-record"
_ARGUMENTS = {
    "project": "the path of a folder",
    "slot": "the name of a model slot",
    "settings": "a list of texts such as 'session.auto_save=true'",
    "network": "True or False",
}
_Problems = Callable[[], Iterable[str]]
_PROBLEMS = pytest.StashKey[list[_Problems]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    group = parser.getgroup("agentscope")
    group.addoption(
        RECORD, action="store_true", help="ask the real models in tests with `recorded_models`, and record them"
    )
    parser.addini("agentscope_project", "folder of the project that is tested, relative to the root of the tests")
    parser.addini(
        "agentscope_guard", "refuse every test the network, not only those with a fixture of agentscope", "bool"
    )


def pytest_configure(config: pytest.Config) -> None:
    """The marker, and the fixtures that need an event loop, which depend on who runs it."""
    config.addinivalue_line(
        "markers",
        f"{_MARK}(*, project, slot, settings, network): the folder of the project that is tested, relative to the "
        "test's file; the slot of `scripted_model`; settings such as 'session.auto_save=true'; and whether the test "
        "may reach the network",
    )
    from agentscope._pytest_async import fixtures

    fixture: Callable[..., Any] = pytest.fixture
    if _has_pytest_asyncio(config):
        import pytest_asyncio

        fixture = pytest_asyncio.fixture
    config.pluginmanager.register(fixtures(fixture), "agentscope-fixtures")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """A test that is run again begins anew."""
    item.stash[_PROBLEMS] = []
    with _guarded_by_option(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test in which a model had no answer or the network was wanted, also when its app went on."""
    with _guarded_by_option(item):
        try:
            result = yield
        except BaseException as error:
            for problem in _problems(item):
                if problem not in str(error):
                    error.add_note(problem)
            raise
    _fail(_problems(item))
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """The same for what comes after the test, such as an app's ``on_shutdown``. Then nothing of it is kept."""
    told = _problems(item)
    try:
        with _guarded_by_option(item):
            result = yield
        _fail([problem for problem in _problems(item) if problem not in told])
    finally:
        item.stash[_PROBLEMS] = []
    return result


@pytest.fixture
def agent_project(request: pytest.FixtureRequest) -> Path:
    """The folder of the project that is tested: that of the nearest agentapp.yaml, from the test's file upwards.

    The marker `agentscope(project="…")` or the option `agentscope_project` names another.
    """
    named = mark(request.node, "project")
    if named is not None:
        return request.path.parent / cast("str", named)
    configured: str = request.config.getini("agentscope_project")
    if configured:
        return (request.config.inipath or request.config.rootpath / "pytest.ini").parent / configured
    for folder in request.path.parents:
        if (folder / "agentapp.yaml").is_file():
            return folder
    stop(
        f"no agentapp.yaml in {request.path.parent} or above it: say where the project is, with "
        '`pytestmark = pytest.mark.agentscope(project="…")`, the option `agentscope_project`, or a fixture '
        "`agent_project` of your own"
    )


@pytest.fixture
def agent_guard(request: pytest.FixtureRequest) -> Generator[NetworkGuard]:
    """Refuses the network to the test, other than loopback; unless it is marked `agentscope(network=True)`."""
    with _guarded(request.node) as guard:
        yield guard


@pytest.fixture
def agentscope_loop(request: pytest.FixtureRequest) -> None:
    """An event loop for the fixtures that need one, or an error that says how to get it."""
    if "anyio_backend" in request.fixturenames:
        return
    if _has_pytest_asyncio(request.config):
        _require_one_loop(request)
        return
    stop(
        "this test needs an event loop for the fixtures of agentscope: run `pip install pytest-asyncio`; without it, "
        "use `asyncio.run(run_app(agent_project, …))`, or `agentscope.testing.running` in a loop of the test's own"
    )


@pytest.fixture
def agentscope_unstarted(request: pytest.FixtureRequest, agent_guard: NetworkGuard, agent_project: Path) -> Runtime:
    """The project's runtime before anything is put in the place of its parts."""
    from agentscope.errors import UserError
    from agentscope.testing import project_runtime

    try:
        return project_runtime(agent_project, cast("list[str]", mark(request.node, "settings") or []))
    except UserError as error:
        stop(str(error))


@pytest.fixture
def agent_models(request: pytest.FixtureRequest, agentscope_unstarted: Runtime) -> Mapping[str, ChatModel]:
    """The models by slot: a `ScriptedModel` for each, or `recorded_models` in a test that uses it."""
    if "recorded_models" in request.fixturenames:
        return cast("Mapping[str, ChatModel]", request.getfixturevalue("recorded_models"))
    from agentscope.testing import ScriptedModel

    models = {slot: ScriptedModel(slot=slot) for slot in agentscope_unstarted.settings.models}
    watch(request.node, lambda: [problem for model in models.values() for problem in model.problems])
    return models


@pytest.fixture
def scripted_model(request: pytest.FixtureRequest, agent_models: Mapping[str, ChatModel]) -> ScriptedModel:
    """The `ScriptedModel` of the slot `main`, or of the one that the marker `agentscope(slot="…")` names."""
    from agentscope.testing import ScriptedModel

    slot = cast("str", mark(request.node, "slot") or "main")
    if slot not in agent_models:
        there = ", ".join(agent_models) or "none"
        stop(f'no model slot {slot!r} (there are: {there}): name one with `@pytest.mark.agentscope(slot="…")`')
    model = agent_models[slot]
    if not isinstance(model, ScriptedModel):
        stop(
            f"the model of the slot {slot!r} is a {type(model).__name__}: `agent_models` gives no ScriptedModel there"
        )
    return model


@pytest.fixture
def agent_tools() -> FakeToolkit:
    """What stands in the place of the MCP servers: a `FakeToolkit` without tools."""
    from agentscope.testing import FakeToolkit

    return FakeToolkit()


@pytest.fixture
def agent_sessions() -> InMemorySessionRepository:
    """What keeps the sessions, in memory."""
    from agentscope.testing import InMemorySessionRepository

    return InMemorySessionRepository()


@pytest.fixture
def agent_overrides() -> Mapping[str, object]:
    """What stands in the place of other providers of the container, by name: nothing."""
    return {}


def _has_pytest_asyncio(config: pytest.Config) -> bool:
    # Not by its name: who loads it with `-p` or `pytest_plugins` gives it another.
    return any(
        getattr(plugin, "__name__", "") == "pytest_asyncio.plugin" for plugin in config.pluginmanager.get_plugins()
    )


def _require_one_loop(request: pytest.FixtureRequest) -> None:
    """Stop a test that would run in another loop than the runtime of its fixtures."""
    marker = request.node.get_closest_marker("asyncio")
    of_marker = None if marker is None else marker.kwargs.get("loop_scope") or marker.kwargs.get("scope")
    of_test = of_marker or request.config.getini("asyncio_default_test_loop_scope") or "function"
    of_fixtures = request.config.getini("asyncio_default_fixture_loop_scope") or "function"
    if of_test != of_fixtures:
        stop(
            f"the test runs in the event loop of its {of_test}, and the fixtures of agentscope in that of their "
            f'{of_fixtures}: set the options `asyncio_default_fixture_loop_scope = "{of_test}"` and '
            f'`asyncio_default_test_loop_scope = "{of_test}"` of pytest, or give the test no `loop_scope`'
        )


def mark(item: pytest.Item, argument: str) -> object:
    """An argument of the marker `agentscope`, of the closest that has it; None without."""
    for found in item.iter_markers(_MARK):
        wrong = [repr(value) for value in found.args] + [name for name in found.kwargs if name not in _ARGUMENTS]
        if wrong:
            known = ", ".join(f"{name}=…" for name in _ARGUMENTS)
            stop(f"the marker `{_MARK}` does not take {wrong[0]}: it takes {known}")
        if argument in found.kwargs:
            value = cast("object", found.kwargs[argument])
            if not _fits(argument, value):
                stop(f"the marker `{_MARK}` does not take {argument}={value!r}: give {_ARGUMENTS[argument]}")
            return value
    return None


def _fits(argument: str, value: object) -> bool:
    if argument == "settings":
        texts = cast("list[object]", value) if isinstance(value, list | tuple) else [None]
        return all(isinstance(text, str) for text in texts)
    return isinstance(value, bool if argument == "network" else str)


def watch(item: pytest.Item, problems: _Problems) -> None:
    """Let the test fail at its end when there are problems."""
    item.stash.setdefault(_PROBLEMS, []).append(problems)


def records(item: pytest.Item) -> bool:
    """Whether real models are asked."""
    return bool(item.config.getoption(RECORD))


def recording_file(item: pytest.Item) -> Path:
    """The file of a test's recorded exchanges: `recordings/<its file>/<its name>.json`, beside the test."""
    name = item.nodeid.partition("::")[2].replace("::", ".")
    safe = re.sub(r"[^\w.-]+", "-", name)[:100]
    if safe != name:
        safe += "-" + hashlib.sha256(name.encode()).hexdigest()[:8]
    return item.path.parent / "recordings" / item.path.stem / f"{safe}.json"


def stop(problem: str) -> NoReturn:
    """End the test with a sentence and no traceback."""
    # Nor that of an error which says the same.
    raise pytest.fail.Exception(problem, pytrace=False) from None


def _guarded_by_option(item: pytest.Item) -> Any:
    return _guarded(item) if item.config.getini("agentscope_guard") else nullcontext()


def _fail(problems: Iterable[str]) -> None:
    if text := "\n".join(problems):
        pytest.fail(text, pytrace=False)


def _guarded(item: pytest.Item) -> Any:
    from agentscope.testing import NetworkGuard

    guard = NetworkGuard()
    if mark(item, "network") or (records(item) and "recorded_models" in getattr(item, "fixturenames", ())):
        return nullcontext(guard)
    watch(item, lambda: [str(refused) for refused in guard.refused])
    return guard.active()


def _problems(item: pytest.Item) -> list[str]:
    watched = item.stash.setdefault(_PROBLEMS, [])
    # Each once, though several watch the same model.
    return list(dict.fromkeys(problem for problems in watched for problem in problems()))
