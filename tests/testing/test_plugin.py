"""The pytest plugin, in runs of pytest of its own."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import agentscope.server
import agentscope.testing
from vendors.openai_server import OpenAIServer

pytest_plugins = ["pytester"]

# What a run inside this one imports first is forgotten after it, and half of it would be imported again.
_IMPORTED = (yaml, agentscope.server, agentscope.testing)

_PROJECT = {
    "agentapp.yaml": """
        models:
          main: {provider: openai, model: gpt-4, api_key: "${OPENAI_API_KEY}"}
          assistant: {provider: openai, model: gpt-4, api_key: "${OPENAI_API_KEY}"}
    """,
    "app.py": """
        from agentscope.message import Msg
        from agentscope.runtime import AgentApp, runtime

        class App(AgentApp):
            async def __call__(self, msg, ctx):
                slot = "assistant" if "help" in msg.content else "main"
                try:
                    text = (await runtime.models[slot]([msg])).text
                except Exception as error:
                    text = f"Error: {error}"
                yield Msg(slot, text, "assistant")
    """,
}


class Project:
    """A project with tests, run in this process."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        pytester.makefile(".yaml", agentapp=_PROJECT["agentapp.yaml"])
        pytester.makepyfile(app=_PROJECT["app.py"])
        self.configure()

    def configure(self, *lines: str, mode: str = "auto") -> None:
        """Write the options."""
        loops = "asyncio_default_fixture_loop_scope = function"
        options = "\n".join(["[pytest]", loops, f"asyncio_mode = {mode}", "filterwarnings = error", *lines])
        self.pytester.makeini(options)

    def run(self, code: str, *arguments: str) -> pytest.RunResult:
        """Run a file of tests."""
        self.pytester.makepyfile(test_it=code)
        return self.pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:cov", *arguments)


@pytest.fixture
def tests(pytester: pytest.Pytester) -> Project:
    return Project(pytester)


def test_the_fixtures_work_together(tests: Project) -> None:
    run = tests.run("""
        import pytest
        from agentscope.testing import assert_said

        async def test_in_this_process(agent_runtime, scripted_model):
            scripted_model.add("Hello", "again")
            assert [msg.content async for msg in agent_runtime.invoke("hi")] == ["Hello"]
            assert_said([msg async for msg in agent_runtime.invoke("hi")], "again", name="main")

        async def test_over_http(agent_client, agent_runtime, agent_models):
            assert agent_client.runtime is agent_runtime
            agent_models["assistant"].add("Hello")
            assert (await agent_client.invoke("help", session_id="s1")).text == "Hello"

        @pytest.mark.agentscope(slot="assistant", settings=["session.auto_save=true"])
        async def test_of_another_slot(agent_runtime, scripted_model):
            assert agent_runtime.settings.session.auto_save
            scripted_model.add("Hello")
            assert_said([msg async for msg in agent_runtime.invoke("help")], "Hello", name="assistant")
    """)
    run.assert_outcomes(passed=3)


def test_strict_mode_works_too(tests: Project) -> None:
    tests.configure(mode="strict")
    run = tests.run("""
        import pytest

        @pytest.mark.asyncio
        async def test_over_http(agent_client, scripted_model):
            scripted_model.add("Hello")
            assert (await agent_client.invoke("hi")).text == "Hello"
    """)
    run.assert_outcomes(passed=1)


def test_a_test_in_another_loop_than_its_fixtures_is_told_so(tests: Project) -> None:
    run = tests.run("""
        import pytest

        @pytest.mark.asyncio(loop_scope="module")
        async def test_it(agent_client):
            pass
    """)
    run.assert_outcomes(errors=1)
    run.stdout.fnmatch_lines(["*runs in the event loop of its module*asyncio_default_fixture_loop_scope*"])


def test_nothing_of_a_test_is_kept_and_one_that_is_run_again_begins_anew(tests: Project) -> None:
    tests.pytester.makeconftest("""
        from _pytest.runner import runtestprotocol

        def pytest_runtest_protocol(item, nextitem):
            for attempt in range(2):
                reports = runtestprotocol(item, nextitem=nextitem, log=False)
                item._initrequest()
            for report in reports:
                item.ihook.pytest_runtest_logreport(report=report)
            return True
    """)
    run = tests.run("""
        import gc
        import weakref

        ATTEMPTS = []

        async def test_that_fails_at_first(agent_client, scripted_model):
            ATTEMPTS.append(weakref.ref(agent_client.runtime))
            if len(ATTEMPTS) > 1:
                scripted_model.add("Hi")
            assert (await agent_client.invoke("hi")).text == "Hi"

        def test_after_it():
            gc.collect()
            assert ATTEMPTS[-1]() is None
    """)
    run.assert_outcomes(passed=2)


def test_without_pytest_asyncio_what_needs_no_loop_works_and_the_rest_says_what_to_install(tests: Project) -> None:
    tests.pytester.makeini("[pytest]\n")
    run = tests.run(
        """
        import asyncio
        import pytest
        from agentscope.testing import run_app

        def test_without_a_loop(agent_project, scripted_model):
            scripted_model.add("Hello")
            (answer,) = asyncio.run(run_app(agent_project, "hi", models=scripted_model))
            assert answer.content == "Hello"

        def test_that_needs_one(agent_client):
            pass

        @pytest.mark.anyio
        @pytest.mark.parametrize("anyio_backend", ["asyncio"])
        async def test_that_has_one(agent_client, scripted_model, anyio_backend):
            scripted_model.add("Hello")
            assert (await agent_client.invoke("hi")).text == "Hello"
        """,
        *("-p", "no:asyncio"),
    )
    run.assert_outcomes(passed=2, errors=1)
    run.stdout.fnmatch_lines(["*this test needs an event loop*pip install pytest-asyncio*"])
    run.stdout.no_fnmatch_line("*Traceback*")


def test_a_model_without_a_reply_fails_the_test_though_the_app_hides_it(tests: Project) -> None:
    run = tests.run("""
        async def test_that_would_pass(agent_runtime):
            assert [msg.name async for msg in agent_runtime.invoke("help")] == ["assistant"]

        async def test_that_fails_itself(agent_client):
            assert (await agent_client.invoke("help")).text == "Hello"
    """)
    run.assert_outcomes(failed=2)
    missing = "*the scripted model of the slot 'assistant' was called 1 times: it has no reply left to 'help'*"
    run.stdout.fnmatch_lines([missing, missing])


def test_what_an_app_misses_as_it_is_shut_down_is_an_error_of_the_test_before(tests: Project) -> None:
    tests.pytester.makepyfile(
        app="""
        from agentscope.message import Msg
        from agentscope.runtime import AgentApp, runtime

        class App(AgentApp):
            async def __call__(self, msg, ctx):
                yield msg

            async def on_shutdown(self):
                try:
                    await runtime.models.main([Msg("user", "good-bye", "user")])
                except AssertionError:
                    pass
        """
    )
    run = tests.run("""
        async def test_that_passes(agent_runtime):
            assert agent_runtime.state == "running"

        def test_after_it():
            pass
    """)
    run.assert_outcomes(passed=2, errors=1)
    run.stdout.fnmatch_lines(["*ERROR at teardown of test_that_passes*", "*it has no reply left to 'good-bye'*"])


def test_replies_of_models_of_one_s_own_are_missed_too(tests: Project) -> None:
    run = tests.run("""
        import pytest
        from agentscope.testing import ScriptedModel

        @pytest.fixture
        def agent_models():
            return {"main": ScriptedModel()}

        async def test_it(agent_runtime):
            async for _ in agent_runtime.invoke("hi"):
                pass
    """)
    run.assert_outcomes(failed=1)
    run.stdout.fnmatch_lines(["*the scripted model was called 1 times*"])


def test_the_network_is_refused_to_a_test_with_a_fixture_and_to_all_with_the_option(tests: Project) -> None:
    code = """
        import socket
        import pytest

        def reach():
            try:
                socket.getaddrinfo("nowhere.invalid", 80)
            except socket.gaierror:
                pass  # it was tried
            except OSError as error:
                return str(error)

        def test_with_a_fixture(agent_guard):
            assert "reaches this machine alone" in reach()

        def test_without():
            reach()

        @pytest.mark.agentscope(network=True)
        def test_that_may(agent_guard):
            assert reach() is None
    """
    run = tests.run(code)
    run.assert_outcomes(passed=2, failed=1)
    run.stdout.fnmatch_lines(["*the test would have reached nowhere.invalid:80*"])
    tests.configure("agentscope_guard = true")
    tests.run(code).assert_outcomes(passed=1, failed=2)


def test_a_real_model_that_a_test_forgot_to_replace_is_named(tests: Project) -> None:
    run = tests.run("""
        from agentscope.runtime import Runtime

        async def test_it(agent_guard, agent_project):
            client = "client_kwargs={max_retries: 0}"
            retries = [f"models.main.{client}"]
            async with Runtime.from_project(
                agent_project, environment={"OPENAI_API_KEY": "k"}, assignments=[*retries, "session.backend=memory"]
            ) as rt:
                async for _ in rt.invoke("hi"):
                    pass
    """)
    run.assert_outcomes(failed=1)
    run.stdout.fnmatch_lines(["*the model slot 'main' (openai)*would have called its vendor at api.openai.com:443*"])


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def test_it(agent_project): pass", "*no agentapp.yaml in * or above it: say where the project is*"),
        (
            "import pytest\n@pytest.mark.agentscope(project='app', slots='x')\ndef test_it(agent_project): pass",
            "*the marker `agentscope` does not take slots: it takes project=*",
        ),
        (
            "import pytest\n@pytest.mark.agentscope(project='app', slot='mian')\ndef test_it(scripted_model): pass",
            "*no model slot 'mian' (there are: main, assistant)*",
        ),
        (
            "import pytest\n@pytest.mark.agentscope(project='app', settings=['a=1'])\ndef test_it(agent_models): pass",
            "*--set a*",
        ),
        (
            "import pytest\n@pytest.mark.agentscope(project='app', settings='a=1')\ndef test_it(agent_models): pass",
            "*does not take settings='a=1': give a list of texts*",
        ),
        (
            "import pytest\n@pytest.mark.agentscope(network='no')\ndef test_it(agent_guard): pass",
            "*does not take network='no': give True or False*",
        ),
        (
            "import pytest\n@pytest.mark.agentscope(project='broken')\nasync def test_it(agent_runtime): pass",
            "*app.py:1: ZeroDivisionError*",
        ),
        (
            "import pytest\n@pytest.fixture\ndef agent_models(): return {'main': None}\n"
            "@pytest.mark.agentscope(project='app')\ndef test_it(scripted_model): pass",
            "*the model of the slot 'main' is a NoneType*",
        ),
        (
            "import pytest\n@pytest.fixture\ndef agent_models(): return ['a model']\n"
            "@pytest.mark.agentscope(project='app')\nasync def test_it(agent_runtime): pass",
            "*the fixture agent_models gives a list: let it give models by slot*",
        ),
        (
            "import pytest\n@pytest.fixture\ndef agent_overrides(): return {'sesions': None}\n"
            "@pytest.mark.agentscope(project='app')\nasync def test_it(agent_runtime): pass",
            "*no provider named 'sesions'*",
        ),
    ],
    ids=[
        "no project",
        "marker",
        "slot",
        "settings",
        "settings as a text",
        "network as a text",
        "app",
        "model",
        "models",
        "override",
    ],
)
def test_a_mistake_is_a_sentence(code: str, said: str, pytester: pytest.Pytester) -> None:
    Project(pytester)
    for folder in ("app", "broken"):
        pytester.mkdir(folder)
        for name in _PROJECT:
            (pytester.path / folder / name).write_text((pytester.path / name).read_text())
    for name in _PROJECT:
        (pytester.path / name).unlink()
    (pytester.path / "broken" / "app.py").write_text("1 / 0")
    pytester.makepyfile(test_it=code)
    run = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:cov")
    run.assert_outcomes(errors=1)
    run.stdout.fnmatch_lines([said])
    run.stdout.no_fnmatch_line("*Traceback*")
    run.stdout.no_fnmatch_line("*During handling*")


def test_the_project_may_be_elsewhere(tests: Project) -> None:
    tests.pytester.mkdir("elsewhere")
    for name in _PROJECT:
        (tests.pytester.path / name).rename(tests.pytester.path / "elsewhere" / name)
    tests.configure("agentscope_project = elsewhere")
    code = "def test_it(agent_project): assert (agent_project / 'app.py').is_file()"
    tests.run(code).assert_outcomes(passed=1)


def test_the_project_of_the_option_is_relative_to_the_file_of_options_from_every_folder(tests: Project) -> None:
    tests.configure("agentscope_project = elsewhere")
    folder = tests.pytester.mkdir("elsewhere")
    for file in ("agentapp.yaml", "app.py"):
        (tests.pytester.path / file).rename(folder / file)
    deep = tests.pytester.mkdir("deep")
    (deep / "test_deep.py").write_text("def test_it(agent_project): assert (agent_project / 'app.py').is_file()\n")
    tests.pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:cov", deep).assert_outcomes(passed=1)


_RECORDED = """
    import pytest

    async def test_it(recorded_models, agent_runtime):
        assert [msg.content async for msg in agent_runtime.invoke("{asked}")] == ["Hello there"]
"""


async def test_models_are_recorded_when_it_is_asked_for(tests: Project) -> None:
    async with OpenAIServer() as vendor:
        vendor.say("Hello", " there")
        tests.pytester.makepyfile(test_it=_RECORDED.format(asked="hi"))
        # In a process of its own: the vendor answers in this one's loop.
        recording = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:cov", "--agentscope-record"),
            cwd=tests.pytester.path,
            stdout=subprocess.PIPE,
            env={
                "AGENTSCOPE_MODELS__MAIN__BASE_URL": vendor.base_url,
                "OPENAI_API_KEY": "sk-the-secret-of-this-test",
            },
        )
        said, _ = await recording.communicate()
        assert recording.returncode == 0, said.decode()
    file = tests.pytester.path / "recordings" / "test_it" / "test_it.json"
    assert "sk-the-secret" not in file.read_text()


def test_what_was_not_recorded_says_how_to_do_it(tests: Project) -> None:
    run = tests.run(_RECORDED.format(asked="hi"))
    run.assert_outcomes(failed=1)
    run.stdout.fnmatch_lines(["*record it again: pytest 'test_it.py::test_it' --agentscope-record*"])
    file = Path(tests.pytester.path, "recordings", "test_it", "test_it.json")
    file.parent.mkdir(parents=True)
    request = {"messages": [{"name": "user", "role": "user", "content": "hi"}]}
    exchange = {"slot": "main", "request": request, "answer": ["Hello", " there"]}
    file.write_text(json.dumps({"agentscope_recording": 1, "exchanges": [exchange]}))
    tests.run(_RECORDED.format(asked="hi")).assert_outcomes(passed=1)
    changed = tests.run(_RECORDED.format(asked="bye"))
    changed.assert_outcomes(failed=1)
    changed.stdout.fnmatch_lines(['*-      "content": "hi"*', '*+      "content": "bye"*'])
    file.write_text("{")
    broken = tests.run(_RECORDED.format(asked="hi"))
    broken.assert_outcomes(errors=1)
    broken.stdout.fnmatch_lines(["*test_it.json is no recording*"])


def test_a_long_name_is_a_short_file(tests: Project) -> None:
    run = tests.run("""
        import pytest
        from agentscope._pytest_plugin import recording_file

        @pytest.mark.parametrize("text", ["a/b", "a b", "x" * 200])
        def test_it(text, request):
            file = recording_file(request.node)
            assert file.parent.name == "test_it"
            assert len(file.name) < 130
            assert file.name.startswith("test_it-")
    """)
    run.assert_outcomes(passed=3)


def test_a_run_of_pytest_imports_nothing_of_the_kernel() -> None:
    heavy = "agentscope.runtime agentscope.testing agentscope.server aiohttp pydantic asyncio".split()
    code = (
        "import pytest, sys; before = set(sys.modules); import agentscope._pytest_plugin, agentscope._pytest_async; "
        f"print([name for name in {heavy} if name in set(sys.modules) - before])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout == "[]\n"
