"""What README and docs show is true of this version: code, configurations, links and commands."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from agentscope.runtime.settings import load_settings
from agentscope_cli.main import cli
from processes import environment

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*/*.md")],
    key=lambda document: str(document.relative_to(ROOT)),
)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_COMMAND = re.compile(r"`(agentscope(?: [^`\n]+)?)`")
_VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)\}")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def blocks(language: str) -> list[Any]:
    """The code blocks of a language in every document, each as a parameter with its place as the id."""
    found: list[Any] = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for block in _BLOCK.finditer(text):
            if block.group(1) == language:
                line = text.count("\n", 0, block.start()) + 1
                found.append(pytest.param(block.group(2), id=f"{document.relative_to(ROOT)}:{line}"))
    return found


def prose(document: Path) -> str:
    """A document without its code blocks."""
    return _BLOCK.sub("", document.read_text(encoding="utf-8"))


@pytest.mark.parametrize("code", blocks("python"))
def test_python_that_is_shown_compiles(code: str) -> None:
    compile(code, "<document>", "exec")


@pytest.mark.parametrize("text", [block for block in blocks("yaml") if "models:" in block.values[0]])
def test_a_configuration_that_is_shown_loads(text: str, tmp_path: Path) -> None:
    (tmp_path / "agentapp.yaml").write_text(text, encoding="utf-8")
    for file in re.findall(r"\{file: ([^}]+)\}", text):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("a-secret\n", encoding="utf-8")
    loaded = load_settings(tmp_path, environment=dict.fromkeys(_VARIABLE.findall(text), "a value"))
    assert loaded.settings.models.keys() == yaml.safe_load(text)["models"].keys()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for link in _LINK.findall(prose(document)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        if anchor:
            headings = _HEADING.findall(_BLOCK.sub("", target.read_text(encoding="utf-8")))
            assert anchor in {_anchor(heading) for heading in headings}, link


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")


def commands() -> list[Any]:
    """Every ``agentscope …`` that a document shows, in a shell block or in its prose."""
    found: list[Any] = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        shell = "".join(block for language, block in _BLOCK.findall(text) if language in {"sh", "bash", "console"})
        lines = [line for line in shell.replace("\\\n", " ").splitlines() if line.startswith("agentscope ")]
        for command in dict.fromkeys([*lines, *_COMMAND.findall(prose(document))]):
            found.append(pytest.param(command, id=f"{document.relative_to(ROOT)}: {command}"))
    return found


@pytest.mark.parametrize("command", commands())
def test_commands_that_are_shown_exist(command: str) -> None:
    found: click.Command = cli
    context = click.Context(cli, info_name="agentscope")
    words = [word for word in shlex.split(command)[1:] if word != "…"]
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        below = found.get_command(context, name)
        assert below is not None, f"no command {name}"
        found = below
    if isinstance(found, click.Group):
        assert set(words) <= {option for parameter in found.get_params(context) for option in parameter.opts}
    else:
        # Reads the options without running anything, and raises UsageError for a wrong one.
        found.make_context(found.name, words)


@pytest.mark.parametrize("document", ["README.md", "README.zh-CN.md", "docs/testing.md"])
def test_the_tests_that_are_shown_pass_beside_the_app_that_is_shown(document: str, tmp_path: Path) -> None:
    app = (ROOT / "README.md").read_text(encoding="utf-8")
    for language, text in [*_BLOCK.findall(app), *_BLOCK.findall((ROOT / document).read_text(encoding="utf-8"))]:
        name = re.match(r"# (agentapp\.yaml|\w+\.py)\n", text)
        if language in {"python", "yaml"} and name is not None:
            (tmp_path / name.group(1)).write_text(text, encoding="utf-8")
    loops = ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *loops],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, run.stdout + run.stderr
