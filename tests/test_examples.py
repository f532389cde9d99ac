"""Each example, started as its README says, answers its README's curl commands as the README shows."""

import json
import re
import shlex
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from agentscope.runtime.settings import load_settings
from guide.text import block
from processes import Running, running

ROOT = Path(__file__).parents[1]
# What has tests of its own is run by them: tests/testing/test_tested_app.py.
EXAMPLES = sorted(
    folder
    for folder in (ROOT / "examples").iterdir()
    if (folder / "app.py").is_file() and not (folder / "tests").is_dir()
)
# Documents with curl commands, and the example that answers them.
SHOWN = {
    "README.md": "quickstart",
    "README.zh-CN.md": "quickstart",
    "docs/http.md": "quickstart",
    **{f"examples/{folder.name}/README.md": folder.name for folder in EXAMPLES},
}
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SECONDS = 10


@dataclass
class Exchange:
    """Curl commands that a document shows together, and what it says that comes back. ``…`` stands for any text."""

    commands: list[str]
    expected: str


def exchanges(document: Path) -> Iterator[Exchange]:
    """What the document shows: a shell block with curl commands, and the block after it."""
    commands: list[str] = []
    for language, text in _BLOCK.findall(document.read_text(encoding="utf-8")):
        if language == "sh":
            commands = re.findall(r"^curl .*?(?=^curl |\Z)", text.replace("\\\n", " "), re.MULTILINE | re.DOTALL)
        elif commands:
            yield Exchange(commands, text)
            commands = []


def curl(command: str, address: str) -> str:
    """Do what the curl command does, at another address, and return what it would print."""
    url, body, with_headers = "", None, False
    method: str | None = None
    headers: dict[str, str] = {}
    words = iter(shlex.split(command)[1:])
    for word in words:
        match word:
            case "-H":
                name, _, value = next(words).partition(": ")
                headers[name] = value
            case "-d":
                body = next(words).encode()
            case "-X":
                method = next(words)
            case "-i":
                with_headers = True
            case "-N":
                pass
            case _:
                url = word.replace("http://localhost:8080", address)
    try:
        response = urlopen(Request(url, body, headers, method=method), timeout=_SECONDS)
    except HTTPError as error:
        response = error
    with response:
        text = response.read().decode().strip()
        head = "".join(f"{name}: {value}\n" for name, value in response.headers.items())
        return f"HTTP/1.1 {response.status} {response.reason}\n{head}\n{text}" if with_headers else text


def assert_shown(expected: str, printed: str) -> None:
    """What came back is what is shown, but for headers that are left out and texts that are shortened to ``…``."""
    if expected.startswith("HTTP/"):
        head, _, expected = expected.partition("\n\n")
        printed_head, _, printed = printed.partition("\n\n")
        for line in head.splitlines():
            assert re.search(f"^{_pattern(line)}$", printed_head, re.MULTILINE), f"{line}\nis not in\n{printed_head}"
    assert re.fullmatch(_pattern(expected.strip()), printed), f"shown:\n{expected}\nprinted:\n{printed}"


def _pattern(shown: str) -> str:
    return re.escape(shown).replace("…", r"[^\n]+?")


def copy(name: str, folder: Path) -> Path:
    """A copy of an example, without what an earlier run left in it."""
    return Path(
        shutil.copytree(
            ROOT / "examples" / name, folder / name, ignore=shutil.ignore_patterns(".agentscope", "__pycache__")
        )
    )


def ask(server: Running, session_id: str, content: str) -> list[dict[str, object]]:
    """The lines of one answer."""
    message = {"name": "user", "role": "user", "content": content}
    body = json.dumps({"session_id": session_id, "message": message})
    request = Request(f"{server.address}/invoke", body.encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=_SECONDS) as response:
        return [json.loads(line) for line in response]


@pytest.mark.parametrize("document", SHOWN)
def test_what_a_document_shows_comes_back_from_its_example(document: str, tmp_path: Path) -> None:
    shown = list(exchanges(ROOT / document))
    assert shown, "no curl command with its answer"
    with running(copy(SHOWN[document], tmp_path)) as server:
        for exchange in shown:
            printed = "\n".join(curl(command, server.address) for command in exchange.commands)
            assert_shown(exchange.expected, printed)
        server.stop(signal.SIGINT)


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_an_example_needs_no_key(folder: Path) -> None:
    settings = load_settings(folder, environment={}).settings
    assert {model.provider for model in settings.models.values()} == {"offline"}


def test_the_quickstart_is_the_guides_app() -> None:
    app = (ROOT / "examples" / "quickstart" / "app.py").read_text(encoding="utf-8")
    assert block("### 3. 实现 App 类", "python") == f"# app.py\n{app}"


def test_a_key_in_the_environment_switches_the_quickstart_to_openai() -> None:
    loaded = load_settings(ROOT / "examples" / "quickstart", environment={"OPENAI_API_KEY": "a-key"})
    main = loaded.settings.models["main"]
    assert (main.provider, main.api_key and main.api_key.get_secret_value()) == ("openai", "a-key")


def test_the_sessions_example_remembers_over_a_restart(tmp_path: Path) -> None:
    project = copy("sessions", tmp_path)
    with running(project) as server:
        ask(server, "ada", "My name is Ada")
        server.stop()
    with running(project) as server:
        answer, remark, _ = ask(server, "ada", "Hello again")
        server.stop()
    assert answer["metadata"] == {"turn": 2}
    assert remark["content"] == "(turn 2; you began with 'My name is Ada')"


def test_the_lifecycle_example_warms_up_before_it_is_ready_and_counts_until_it_stops(tmp_path: Path) -> None:
    with running(copy("lifecycle", tmp_path)) as server:
        assert server.said.startswith("warmed up: main, enterprise\n")
        ask(server, "s1", "Help")
        ask(server, "s2", "Help")
        printed = server.stop(signal.SIGINT)
    assert "answered 2 requests\n" in printed
