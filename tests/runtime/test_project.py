"""Loading a project: its modules are its own, and its mistakes are told in a line."""

import re
import sys
from pathlib import Path

import pytest

from agentscope.errors import ProjectError
from agentscope.runtime import Runtime
from serving import settings

APP = "from agentscope.runtime import AgentApp\n"


def project(folder: Path, **files: str) -> Path:
    for name, text in {"app": APP + "class App(AgentApp): pass\n", **files}.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


async def start(folder: Path, **sections: object) -> Runtime:
    rt = Runtime(settings(**sections), project=folder)
    await rt.initialize()
    return rt


SPEAKING = """
from agentscope.message import Msg
{imports}
class App(AgentApp):
    async def __call__(self, msg, ctx):
{late}        yield Msg("a", {word}, "assistant")
"""


async def said(rt: Runtime) -> list[object]:
    return [msg.content async for msg in rt.invoke("hi")]


async def test_two_projects_with_modules_of_one_name_do_not_see_each_other(tmp_path: Path) -> None:
    runtimes: list[Runtime] = []
    for name in ("one", "two"):
        app = APP + SPEAKING.format(imports="from tools import WORD", late="", word="WORD")
        folder = project(tmp_path / name, app=app, tools=f"WORD = '{name}'")
        runtimes.append(await start(folder))
    assert [await said(rt) for rt in runtimes] == [["one"], ["two"]]
    for rt in runtimes:
        await rt.shutdown()
    assert "tools" not in sys.modules
    assert not [name for name in sys.modules if name.startswith("_agentscope_project")]


@pytest.mark.parametrize(
    ("imports", "late", "word"),
    [
        pytest.param("import tools", "", "tools.WORD", id="import"),
        pytest.param("import pack.inner", "", "pack.inner.WORD", id="dotted import"),
        pytest.param("import pack.inner as p", "", "p.WORD", id="dotted import with a name"),
        pytest.param("from pack import inner", "", "inner.WORD", id="from a package"),
        pytest.param("from pack import sibling", "", "sibling.WORD", id="relative inside a package"),
        pytest.param("from .tools import WORD", "", "WORD", id="relative"),
        pytest.param("from bare.thing import WORD", "", "WORD", id="a folder without __init__"),
        pytest.param("", "        import tools\n", "tools.WORD", id="while it runs"),
        pytest.param("import statistics", "", "str(statistics.mean([1, 3]))[:0] + 'it'", id="the standard library"),
        pytest.param("from dataclasses import dataclass\nimport model", "", "model.Thing('it').word", id="dataclass"),
    ],
)
async def test_every_form_of_import_finds_the_projects_modules(
    tmp_path: Path, imports: str, late: str, word: str
) -> None:
    folder = project(
        tmp_path,
        app=APP + SPEAKING.format(imports=imports, late=late, word=word),
        tools="WORD = 'it'",
        pack____init__="",
        pack__inner="import tools\nWORD = tools.WORD",
        pack__sibling="from .inner import WORD",
        bare__thing="WORD = 'it'",
        model="from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Thing:\n    word: str",
    )
    rt = await start(folder)
    assert await said(rt) == ["it"]
    await rt.shutdown()


async def test_a_module_of_the_project_hides_an_installed_one_for_the_project_only(tmp_path: Path) -> None:
    app = APP + SPEAKING.format(imports="import logging", late="", word="logging.WORD")
    rt = await start(project(tmp_path, app=app, logging="WORD = 'own'"))
    assert await said(rt) == ["own"]
    import logging

    assert not hasattr(logging, "WORD")
    await rt.shutdown()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param({"app": "x = 1\nraise ValueError('no good')"}, "app.py:2: ValueError: no good", id="raises"),
        pytest.param(
            {"app": "import helper", "helper": "\n\n1/0"}, "helper.py:3: ZeroDivisionError", id="a module raises"
        ),
        pytest.param({"app": "def f(:\n  pass"}, "app.py:1: SyntaxError: invalid syntax", id="syntax"),
        pytest.param(
            {"app": "import not_there_at_all.sub"},
            "app.py:1: no module 'not_there_at_all', neither in the project nor installed; if it is a package's, run: "
            "pip install not_there_at_all",
            id="a module that isn't installed",
        ),
        pytest.param(
            {"app": "import importlib\nimportlib.import_module('beside')", "beside": ""},
            "app.py:2: no module 'beside' is installed; for beside.py beside app.py, write "
            "importlib.import_module('.beside', __package__)",
            id="a module of its own, by name",
        ),
        pytest.param(
            {"app": "from agentscope.nothing import Thing"},
            "app.py:1: this version of agentscope-kernel has no module 'agentscope.nothing'",
            id="a module of ours that isn't there",
        ),
        pytest.param({"app": "x = 1"}, "app.py: no class App: write `class App(AgentApp):`", id="no class"),
        pytest.param(
            {"app": APP + "class Mine(AgentApp): pass"},
            "app.py: no class App; set `app: app:Mine` in agentapp.yaml",
            id="a class of another name",
        ),
        pytest.param(
            {"app": APP + "class App(AgentApp):\n  def __call__(self, msg, ctx): pass"},
            "app.py: App.__call__ must be asynchronous",
            id="a synchronous call",
        ),
        pytest.param(
            {"app": APP + "class App(AgentApp):\n  async def __call__(self, msg): pass"},
            "app.py: App.__call__ must take (self, msg, ctx): write `async def __call__(self, msg, ctx)`",
            id="a call without the context",
        ),
    ],
)
async def test_a_mistake_in_the_project_is_told_in_a_line_with_its_place(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    with pytest.raises(ProjectError, match=re.escape(message)) as caught:
        await start(project(tmp_path, **files))
    assert "\n" not in str(caught.value)


async def test_without_an_app_file_the_message_says_which_to_make(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"no app\.py in .*: create it with a class App, or set `app`"):
        await start(tmp_path)


async def test_requirements_are_what_to_install_when_the_project_lists_them(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("not_there_at_all\n")
    with pytest.raises(ProjectError, match=r"run: pip install -r requirements\.txt"):
        await start(project(tmp_path, app="import not_there_at_all"))


async def test_the_app_may_live_elsewhere_in_the_project(tmp_path: Path) -> None:
    app = APP + SPEAKING.format(imports="", late="", word="'elsewhere'").replace("class App", "class Bot")
    rt = await start(project(tmp_path, src____init__="", src__bot=app), app="src.bot:Bot")
    assert await said(rt) == ["elsewhere"]
    await rt.shutdown()
