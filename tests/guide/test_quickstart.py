"""The guide's quickstart: its files, unchanged, in a process that `agentscope run` started, asked with its curl."""

import asyncio
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from guide.text import COPY, SEED, block
from processes import Running, running
from vendors.anthropic_server import AnthropicServer
from vendors.openai_server import OpenAIServer

KEY = "sk-the-secret-of-this-test"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The guide's two files."""
    (tmp_path / "agentapp.yaml").write_text(block("### 2. 编写配置文件", "yaml"))
    (tmp_path / "app.py").write_text(block("### 3. 实现 App 类", "python"))
    return tmp_path


def test_the_copy_of_the_guide_is_the_guide() -> None:
    if not SEED.is_dir():
        pytest.skip("the original lies beside a full workspace only; the copy is what the tests use")
    assert [file.read_text() for file in SEED.iterdir()] == [COPY.read_text()]


def guides_curl(address: str) -> list[str]:
    """The curl command of the guide, sent to another port."""
    script = block("## 本地调试", "bash").split("# 测试请求\n")[1]
    script = script.replace("http://localhost:8080", address).replace("curl", "exec curl --silent --no-buffer")
    return ["sh", "-c", script]


def curl(server: Running) -> list[dict[str, Any]]:
    answer = subprocess.run(guides_curl(server.address), capture_output=True, check=True, timeout=10)
    return [json.loads(line) for line in answer.stdout.splitlines() if line]


async def test_the_quickstart_answers_through_the_openai_sdk(project: Path) -> None:
    async with OpenAIServer() as vendor:
        vendor.say("Hello", " there", usage=(12, 2))
        debug = ("--log-level", "debug", "--no-platform")
        with running(
            project, *debug, "--set", f"models.main.base_url={vendor.base_url}", OPENAI_API_KEY=KEY
        ) as server:
            *messages, trailer = await server.in_thread(curl)
            log = server.stop()
    assert [m["content"] for m in messages if m["content"]] == ["Hello", " there"]
    assert {(m["name"], m["role"]) for m in messages} == {("assistant", "assistant")}
    assert trailer == {"metadata": {"done": True, "usage": {"input_tokens": 12, "output_tokens": 2}}}
    (request,) = vendor.requests
    assert request.body["model"] == "gpt-4"
    assert request.body["messages"] == [{"role": "user", "content": "Hello", "name": "user"}] or request.body[
        "messages"
    ] == [{"role": "user", "content": "Hello"}]
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in log


async def test_the_quickstart_answers_through_the_anthropic_sdk(project: Path) -> None:
    yaml = project / "agentapp.yaml"
    yaml.write_text(yaml.read_text().replace("provider: openai", "provider: anthropic"))
    async with AnthropicServer() as vendor:
        vendor.say("Hello", " there", usage=(12, 2))
        with running(project, "--set", f"models.main.base_url={vendor.base_url}", OPENAI_API_KEY=KEY) as server:
            *messages, trailer = await server.in_thread(curl)
    assert [m["content"] for m in messages if m["content"]] == ["Hello", " there"]
    assert trailer["metadata"]["usage"] == {"input_tokens": 12, "output_tokens": 2}


async def test_killing_the_client_after_the_first_line_closes_the_vendors_connection(project: Path) -> None:
    async with OpenAIServer() as vendor:
        vendor.say("Hello", then="hang")
        with running(project, "--set", f"models.main.base_url={vendor.base_url}", OPENAI_API_KEY=KEY) as server:
            client = await asyncio.create_subprocess_exec(*guides_curl(server.address), stdout=subprocess.PIPE)
            assert client.stdout is not None
            line = await client.stdout.readline()
            client.kill()
            await client.wait()
            # A second from the client's death to the closed connection: what is promised is a time.
            await server.within(1.0, vendor.client_left.wait())
    assert json.loads(line)["content"] == "Hello"


def test_the_guides_commands_are_ones_we_have() -> None:
    commands = re.findall(r"^agentscope (.*)$", COPY.read_text(), re.MULTILINE)
    assert set(commands) == {"run .", "run . --log-level debug --no-platform", "run . --port 9000"}
