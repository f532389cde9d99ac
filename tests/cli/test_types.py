"""``agentscope types``: what mypy and basedpyright make of its stub, and what it writes, keeps and refuses."""

import json
import logging
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import agentscope.runtime
from agentscope.errors import ProjectError, UserError
from agentscope.runtime import ModelSlots
from agentscope.runtime.settings import ConfigurationError
from agentscope.testing import ScriptedModel
from agentscope_cli._types import keep_types_current
from agentscope_cli.main import cli

ROOT = Path(__file__).parents[2]
STUB = Path("typings", "agentscope", "runtime", "__init__.pyi")
YAML = """\
models:
  main: {provider: offline}
  assistant: {provider: offline}
  fast-model: {provider: openai, model: m, api_key: "${A_KEY_THAT_IS_NOT_SET}"}
  class: {provider: offline}
  items: {provider: offline}
  property: {provider: offline}
"""
GOOD = """\
from agentscope import __version__
from agentscope.message import Msg
from agentscope.runtime import ModelHandle, ModelSlots, Runtime, runtime
from agentscope.runtime.settings import load_settings
from typing_extensions import assert_type


def takes_any(models: ModelSlots) -> ModelHandle:
    return models.whatever


async def work() -> None:
    assert_type(runtime.models.main, ModelHandle)
    assert_type(runtime.models.property, ModelHandle)
    assert_type(runtime.models["fast-model"], ModelHandle)
    assert_type(runtime.models["class"], ModelHandle)
    for slot, handle in runtime.models.items():
        assert_type(runtime.models[slot], ModelHandle)
        assert_type(handle, ModelHandle)
    for slot in runtime.models:
        assert_type(runtime.models[slot], ModelHandle)
    takes_any(runtime.models)
    assert_type(runtime.settings.models["main"].model, str | None)
    assert_type(load_settings, type(load_settings))
    assert_type(__version__, str)
    async for msg in runtime.invoke("hi"):
        assert_type(msg, Msg)
    async with Runtime.from_project("elsewhere") as other:
        assert_type(other.models.whatever, ModelHandle)
""".replace("    assert_type(load_settings, type(load_settings))\n", "    load_settings\n")
BAD = """\
from agentscope.runtime import runtime

runtime.models.mian
runtime.models["mian"]
runtime.models.items.stream([])
runtime.models.main = runtime.models.assistant
from agentscope.runtime import nonsense
runtime.nonsense
"""
BAD_LINES = [3, 4, 5, 6, 7, 8]
PYPROJECT = """\
[tool.mypy]
strict = true
mypy_path = "$MYPY_CONFIG_FILE_DIR/typings"

[tool.basedpyright]
typeCheckingMode = "standard"
reportUnusedExpression = false
strict = ["typings"]
"""


def types(project: Path, *arguments: str) -> Result:
    """Run the command in this process; a mistake of the user is raised, as ``main`` gets it."""
    result = CliRunner().invoke(cli, ["types", str(project), *arguments])
    if isinstance(result.exception, UserError):
        raise result.exception
    return result


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with slots of every kind, one of whose keys isn't there."""
    (tmp_path / "agentapp.yaml").write_text(YAML)
    return tmp_path


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of an environment in which the packages are installed as a wheel does it: checkers look there last."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    for room in ("kernel/agentscope", "adapters/agentscope_adapters", "cli/agentscope_cli"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / room, site / Path(room).name, ignore=ignored)
    # What they need is taken from the environment of the tests, but not the checkout that is installed there.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin" / "python"


def checked(checker: str, project: Path, interpreter: Path) -> dict[str, list[int]]:
    """The lines with errors, by file."""
    found: dict[str, list[int]] = {}
    options = {
        "mypy": ["--no-incremental", "--output=json", "--python-executable", str(interpreter), "."],
        "basedpyright": ["--outputjson", "--pythonpath", str(interpreter)],
    }
    run = subprocess.run(
        [str(Path(sys.executable).with_name(checker)), *options[checker]],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode in {0, 1}, run.stdout + run.stderr
    if checker == "mypy":
        errors = [json.loads(line) for line in run.stdout.splitlines()]
        places = [(error["file"], error["line"]) for error in errors if error["severity"] == "error"]
    else:
        errors = json.loads(run.stdout)["generalDiagnostics"]
        places = [
            (str(Path(error["file"]).relative_to(project.resolve())), error["range"]["start"]["line"] + 1)
            for error in errors
            if error["severity"] == "error"
        ]
    for file, line in places:
        found.setdefault(file, []).append(line)
    return {file: sorted(set(lines)) for file, lines in found.items()}


@pytest.mark.parametrize("checker", ["mypy", "basedpyright"])
def test_a_checker_knows_the_slots_and_finds_nothing_else_changed(
    checker: str, project: Path, interpreter: Path
) -> None:
    types(project)
    for example in ("quickstart", "multi_agent"):
        shutil.copy(ROOT / "examples" / example / "app.py", project / f"{example}.py")
    (project / "good.py").write_text(GOOD)
    (project / "bad.py").write_text(BAD)
    (project / "pyproject.toml").write_text(PYPROJECT)
    assert checked(checker, project, interpreter) == {"bad.py": BAD_LINES}


def test_the_stub_has_every_public_name(project: Path) -> None:
    types(project)
    stub = (project / STUB).read_text()
    assert [name for name in agentscope.runtime.__all__ if f" as {name}\n" not in stub] == ["runtime"]
    assert "\nruntime: _Runtime\n" in stub


def test_every_slot_that_python_reaches_as_an_attribute_is_one_in_the_stub(project: Path) -> None:
    types(project)
    lines = (project / STUB).read_text().splitlines()
    attributes = [line.split(":")[0].strip() for line in lines if line.endswith("_Final[_ModelHandle]")]
    assert attributes == ["main", "assistant", "property"]
    slots = ModelSlots(dict.fromkeys(attributes, ScriptedModel))
    assert [getattr(slots, slot).slot for slot in attributes] == attributes


@pytest.mark.parametrize(
    "configuration",
    [
        pytest.param("  main: {provider: openai, model: m, api_key: '${NOT_SET}'}", id="a variable that is not set"),
        pytest.param("  main: {provider: openai, model: m, base_url: '${NOT_SET}'}", id="that is to be a URL"),
        pytest.param("  main: {provider: '${NOT_SET}', stream: '${NOT_SET}'}", id="that is to be a truth value"),
        pytest.param("  main: {provider: openai, model: m, api_key: {file: nowhere}}", id="a secret's file"),
    ],
)
def test_no_value_is_needed(configuration: str, tmp_path: Path) -> None:
    (tmp_path / "agentapp.yaml").write_text(f"models:\n{configuration}\nserver: {{port: '${{NOT_SET}}'}}\n")
    assert "runtime.models has main\n" in types(tmp_path).output


def test_the_slots_come_from_every_source(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("models: {first: {provider: offline}}\n")
    (project / ".env").write_text("AGENTSCOPE_MODELS__SECOND__PROVIDER=offline\n")
    monkeypatch.setenv("AGENTSCOPE_MODELS__THIRD__PROVIDER", "offline")
    result = types(project, "--config", str(other), "--set", "models.fourth.provider=offline")
    assert result.output.splitlines()[0].endswith("written: runtime.models has first, second, third, fourth")


def test_a_project_without_models_has_no_slots(tmp_path: Path) -> None:
    (tmp_path / "agentapp.yaml").write_text("")
    assert types(tmp_path).output.splitlines()[0].endswith("runtime.models has no slots")
    assert "_Slot: _TypeAlias = _Never\n" in (tmp_path / STUB).read_text()


def test_what_is_up_to_date_is_not_written_again(project: Path) -> None:
    expected = 'runtime.models has main, assistant, ["fast-model"], ["class"], ["items"], property'
    assert f"{STUB} written: {expected}\n" in types(project).output
    before = (project / STUB).stat()
    assert f"{STUB} is up to date: {expected}\n" in types(project).output
    assert (project / STUB).stat() == before
    assert [path.name for path in (project / STUB).parent.iterdir()] == ["__init__.pyi"]


def test_check_tells_that_the_stub_is_old_and_writes_nothing(project: Path) -> None:
    missing = types(project, "--check")
    assert (missing.exit_code, missing.output) == (1, f"{project / STUB} is out of date: run `agentscope types`\n")
    assert not (project / "typings").exists()
    types(project)
    assert types(project, "--check").exit_code == 0
    before = (project / STUB).read_text()
    assert types(project, "--check", "--set", "models.another.provider=offline").exit_code == 1
    assert (project / STUB).read_text() == before


@pytest.mark.parametrize("option", [[], ["--check"]], ids=["", "--check"])
@pytest.mark.parametrize("file", [STUB, STUB.parents[1] / "__init__.pyi"], ids=["runtime", "parent"])
def test_a_file_that_somebody_else_wrote_stays(file: Path, option: list[str], project: Path) -> None:
    (project / file).parent.mkdir(parents=True)
    (project / file).write_text("runtime: int\n")
    with pytest.raises(
        UserError, match=r"__init__\.pyi was not made by `agentscope types` and stays as it is: move it"
    ):
        types(project, *option)
    assert [path for path in (project / "typings").rglob("*") if path.is_file()] == [project / file]
    assert (project / file).read_text() == "runtime: int\n"


def test_a_folder_that_can_not_be_written_is_named(project: Path) -> None:
    (project / "typings").write_text("")
    with pytest.raises(UserError, match=r"__init__\.pyi can't be read: not a directory$"):
        types(project)


def test_a_wrong_configuration_is_told_as_everywhere(project: Path) -> None:
    (project / "agentapp.yaml").write_text("modles: {}\n")
    with pytest.raises(ConfigurationError, match="did you mean models"):
        types(project)
    with pytest.raises(ProjectError, match="no folder"):
        types(project / "nowhere")


FOR_MYPY = "for mypy, put into %spyproject.toml, below [tool.mypy]: mypy_path = "
FOLDER = "$MYPY_CONFIG_FILE_DIR/"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, [FOR_MYPY % "app/" + f'"{FOLDER}typings"'], id="nothing configured"),
        pytest.param(
            {"app/pyproject.toml": "[tool.mypy]\nmypy_path = 'src'\n"},
            ['for mypy, add to mypy_path in app/pyproject.toml, below [tool.mypy]: "$MYPY_CONFIG_FILE_DIR/typings"'],
            id="another mypy_path",
        ),
        pytest.param({"app/pyproject.toml": "[tool.mypy]\nmypy_path = 'src:typings'\n"}, [], id="a text"),
        pytest.param(
            {"app/pyproject.toml": "[tool.mypy]\nmypy_path = ['$MYPY_CONFIG_FILE_DIR/typings/']\n"}, [], id="a list"
        ),
        pytest.param({"app/pyproject.toml": "[tool.basedpyright]\n"}, [], id="pyright alone"),
        pytest.param({"app/mypy.ini": "[mypy]\nmypy_path =\n  src,\n  typings\n"}, [], id="mypy.ini"),
        pytest.param(
            {"app/mypy.ini": "[mypy]\nstrict = true\n", "app/pyproject.toml": "[tool.pyright]\n"},
            ["for mypy, put into app/mypy.ini, below [mypy]: mypy_path = $MYPY_CONFIG_FILE_DIR/typings"],
            id="mypy.ini without a path",
        ),
        pytest.param(
            {"app/setup.cfg": "[mypy]\nstrict = true\n", "app/pyproject.toml": "[project]\nname = 'app'\n"},
            ["for mypy, put into app/setup.cfg, below [mypy]: mypy_path = $MYPY_CONFIG_FILE_DIR/typings"],
            id="setup.cfg",
        ),
        pytest.param(
            {"pyproject.toml": "[tool.mypy]\n[tool.pyright]\n"},
            [
                'for pyright, put into pyproject.toml, below [tool.pyright]: stubPath = "app/typings"',
                FOR_MYPY % "" + f'"{FOLDER}app/typings"',
            ],
            id="a pyproject.toml above",
        ),
        pytest.param(
            {"pyproject.toml": "[tool.mypy]\n", "app/.git": ""},
            [FOR_MYPY % "app/" + f'"{FOLDER}typings"'],
            id="one of another repository above",
        ),
        pytest.param({"app/pyproject.toml": "[tool.pyright]\nstubPath = 'stubs'\n"}, [], id="another stubPath"),
        pytest.param(
            {"app/pyproject.toml": "[broken"},
            [FOR_MYPY % "app/" + f'"{FOLDER}typings"'],
            id="not TOML",
        ),
        pytest.param(
            {"app/pyproject.toml": "[tool.basedpyright]\nstubPath = 'stubs'\n[tool.pyright]\nstubPath = 'other'\n"},
            [],
            id="basedpyright counts before pyright",
        ),
        pytest.param(
            {"pyproject.toml": "[tool.pyright]\n", "pyrightconfig.json": "{} // of its own"},
            [],
            id="a pyrightconfig.json above",
        ),
        pytest.param(
            {"app/.mypy.ini": "[mypy]\nstrict = true\n"},
            ["for mypy, put into app/.mypy.ini, below [mypy]: mypy_path = $MYPY_CONFIG_FILE_DIR/typings"],
            id="a hidden mypy.ini",
        ),
        pytest.param(
            {"app/mypy.ini": "mypy_path = typings\n"},
            ["for mypy, put into app/mypy.ini, below [mypy]: mypy_path = $MYPY_CONFIG_FILE_DIR/typings"],
            id="a mypy.ini without a section",
        ),
    ],
)
def test_it_says_what_the_checkers_need_and_nothing_else(
    files: dict[str, str], expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "agentapp.yaml").write_text("models: {main: {provider: offline}}\n")
    (tmp_path / ".git").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    written, *hints = types(Path("app")).output.splitlines()
    folder = "stubs" if "stubPath" in str(files) else "typings"
    assert written == f"app/{folder}/agentscope/runtime/__init__.pyi written: runtime.models has main"
    assert hints == expected


def test_a_stub_that_is_there_is_kept_current(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agentscope.cli")
    keep_types_current(project)
    assert not (project / "typings").exists()
    types(project)
    keep_types_current(project)
    assert caplog.messages == []
    (project / "agentapp.yaml").write_text(YAML + "  another: {provider: offline}\n")
    keep_types_current(project)
    assert caplog.messages == [f"the type stub {project / STUB} follows the model slots"]
    assert "    another: _Final[_ModelHandle]\n" in (project / STUB).read_text()
    (project / "agentapp.yaml").write_text("modles: {}\n")
    keep_types_current(project)
    assert caplog.messages[1].startswith(f"the type stub {project / STUB} stays as it is: agentapp.yaml:1:1")


def test_a_file_that_somebody_else_wrote_is_not_kept_current(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    (project / STUB).parent.mkdir(parents=True)
    (project / STUB).write_text("runtime: int\n")
    keep_types_current(project)
    assert (project / STUB).read_text() == "runtime: int\n"
    assert caplog.messages == []
