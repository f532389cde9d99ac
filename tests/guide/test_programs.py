"""The guide's complete programs, unchanged, in processes that `agentscope run` started, against servers of vendors."""

import json
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from guide.text import block, imports
from mcp_servers import echo_server
from processes import Running, running
from vendors.anthropic_server import AnthropicServer
from vendors.openai_server import OpenAIServer, ToolCall

KEY = "sk-the-secret-of-this-test"


def ask(server: Running, text: str, session_id: str = "s1") -> list[dict[str, Any]]:
    body = {"session_id": session_id, "message": {"name": "ada", "role": "user", "content": text}}
    request = Request(f"{server.address}/invoke", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=20) as response:
        return [json.loads(line) for line in response if line.strip()]


def text(messages: list[dict[str, Any]]) -> str:
    """What a user reads: the texts, one after the other."""
    return "".join(message["content"] for message in messages if isinstance(message.get("content"), str))


def blocks(messages: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    lists = [message["content"] for message in messages if isinstance(message.get("content"), list)]
    return [part for content in lists for part in content if part["type"] == kind]


async def test_the_agent_with_tools_calls_them_over_several_turns_and_a_restart(tmp_path: Path) -> None:
    (tmp_path / "agentapp.yaml").write_text(block("### 带工具的 ReActAgent", "yaml"))
    (tmp_path / "app.py").write_text(block("### 带工具的 ReActAgent", "python"))
    async with echo_server("sse", tmp_path) as search, OpenAIServer() as vendor:
        where = [
            f"--set=models.main.base_url={vendor.base_url}",
            f"--set=mcp_servers.search.url={search.address}/sse",
        ]
        vendor.say(tool_calls=[ToolCall("echo", {"text": "cats"}, id="call_a")], usage=(10, 5))
        vendor.say(tool_calls=[ToolCall("echo", {"text": "dogs"}, id="call_b")], usage=(20, 5))
        vendor.say("Both", " found", usage=(30, 2))
        vendor.say("You asked for cats and dogs", usage=(40, 6))
        with running(tmp_path, *where, OPENAI_API_KEY=KEY) as server:
            *first, trailer = await server.in_thread(lambda server: ask(server, "cats and dogs"))
            server.stop()
        with running(tmp_path, *where, OPENAI_API_KEY=KEY) as server:
            *second, _ = await server.in_thread(lambda server: ask(server, "what did I ask?"))
            log = server.stop()
    assert text(first) == "Both found"
    assert [part["id"] for part in blocks(first, "tool_use")] == ["call_a", "call_b"]
    assert ["cats" in json.dumps(part["output"]) for part in blocks(first, "tool_result")] == [True, False]
    assert trailer["metadata"]["usage"] == {"input_tokens": 60, "output_tokens": 12}
    assert text(second) == "You asked for cats and dogs"
    assert [tool["function"]["name"] for tool in vendor.requests[0].body["tools"]].count("echo") == 1
    assert [(m["role"], m.get("tool_call_id")) for m in vendor.requests[3].body["messages"]] == [
        ("system", None),
        ("user", None),
        ("assistant", None),
        ("tool", "call_a"),
        ("assistant", None),
        ("tool", "call_b"),
        ("assistant", None),
        ("user", None),
    ]
    assert KEY not in log


MULTI_AGENT = """
models:
  main: {{provider: {0}, model: planner-model, api_key: key, base_url: "{1}"}}
  assistant: {{provider: {0}, model: executor-model, api_key: key, base_url: "{1}"}}
"""


@pytest.mark.parametrize("vendor_of", [OpenAIServer, AnthropicServer], ids=["openai", "anthropic"])
async def test_the_plan_of_one_agent_is_a_user_s_turn_to_the_other(
    vendor_of: type[OpenAIServer | AnthropicServer], tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(block("### 多 Agent 协作", "python"))
    async with vendor_of() as vendor:
        provider = "openai" if vendor_of is OpenAIServer else "anthropic"
        (tmp_path / "agentapp.yaml").write_text(MULTI_AGENT.format(provider, vendor.base_url))
        for turn in ("1", "2"):
            vendor.say(f"plan {turn}")
            vendor.say("done", f" {turn}")
        with running(tmp_path) as server:
            answers = [await server.in_thread(lambda server, n=n: ask(server, f"task {n}")) for n in (1, 2)]  # type: ignore[misc]
            server.stop()
    assert [text(messages[:-1]) for messages in answers] == ["Plan: plan 1done 1", "Plan: plan 2done 2"]
    assert [request.body["model"] for request in vendor.requests] == ["planner-model", "executor-model"] * 2
    planner, executor = vendor.requests[2].body, vendor.requests[3].body
    assert said(planner) == [("user", "task 1"), ("assistant", "plan 1"), ("user", "task 2")]
    assert said(executor) == [("user", "plan 1"), ("assistant", "done 1"), ("user", "plan 2")]


def said(body: dict[str, Any]) -> list[tuple[str, str]]:
    """The conversation that a vendor was sent, without the system's part."""
    turns = [message for message in body["messages"] if message["role"] != "system"]
    return [(turn["role"], _text(turn["content"])) for turn in turns]


def _text(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


# The fragment takes an agent on `self` for granted.
WITH_AGENT = """

class WithAgent(App):
    async def on_startup(self):
        from agentscope.agent import ReActAgent
        self.agent = ReActAgent(
            name="Assistant", sys_prompt="", model=runtime.models.main, toolkit=runtime.tools
        )
"""


async def test_automatic_state_keeps_each_conversation_over_a_restart(tmp_path: Path) -> None:
    (tmp_path / "agentapp.yaml").write_text(block("### 带工具的 ReActAgent", "yaml"))
    (tmp_path / "app.py").write_text(f"{imports()}\n\n{block('### 自动状态持久化', 'python')}{WITH_AGENT}")
    async with echo_server("sse", tmp_path) as search, OpenAIServer() as vendor:
        options = [
            "--set=app=app:WithAgent",
            f"--set=models.main.base_url={vendor.base_url}",
            f"--set=mcp_servers.search.url={search.address}/sse",
        ]
        vendor.say(tool_calls=[ToolCall("echo", {"text": "rain"})])
        vendor.say("It rains")
        vendor.say("Hello Bob")
        vendor.say("It rained")
        with running(tmp_path, *options, OPENAI_API_KEY=KEY) as server:
            await server.in_thread(lambda server: ask(server, "weather?", "ada"))
            await server.in_thread(lambda server: ask(server, "I am Bob", "bob"))
            server.stop()
        with running(tmp_path, *options, OPENAI_API_KEY=KEY) as server:
            answer = await server.in_thread(lambda server: ask(server, "and before?", "ada"))
            server.stop()
    assert text(answer[:-1]) == "It rained"
    bob, ada = json.dumps(vendor.requests[2].body), json.dumps(vendor.requests[3].body["messages"])
    assert "weather" not in bob
    assert "Bob" not in ada
    assert all(word in ada for word in ("weather?", "rain", "It rains", "and before?"))
