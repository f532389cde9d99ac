"""What the tests of tools have in common: calls, a source that changes, and an app that works on a toolkit."""

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, TypeVar, cast

from agentscope.message import Msg, ToolUseBlock
from agentscope.runtime import AgentApp, Runtime, SessionContext
from agentscope.tool import FunctionTool, Tool, Toolkit, ToolResponse
from serving import settings

_T = TypeVar("_T")

Work = Callable[[Toolkit, SessionContext], Coroutine[Any, Any, _T]]


def block(name: str, /, **arguments: Any) -> ToolUseBlock:
    """A model's call."""
    return {"type": "tool_use", "id": "call_1", "name": name, "input": arguments}


def text_of(response: ToolResponse) -> str:
    """The texts of a response, a line for each block."""
    return "\n".join(part["text"] for part in response.content if part["type"] == "text")


async def responses(toolkit: Toolkit, name: str, /, **arguments: Any) -> list[ToolResponse]:
    """All responses of a call."""
    return [response async for response in toolkit.call_tool_function(block(name, **arguments))]


async def said(toolkit: Toolkit, name: str, /, **arguments: Any) -> str:
    """The text of the last response, which says that it is the last."""
    last = (await responses(toolkit, name, **arguments))[-1]
    assert last.is_last
    return text_of(last)


async def refusal(toolkit: Toolkit, name: str, /, **arguments: Any) -> str:
    """The text of the one response that tells of a failure."""
    (response,) = await responses(toolkit, name, **arguments)
    assert response.metadata == {"is_error": True}
    assert response.is_last
    return text_of(response)


def toolkit_of(*functions: Callable[..., Any], **options: Any) -> Toolkit:
    """A toolkit with these functions."""
    toolkit = Toolkit()
    for function in functions:
        toolkit.register_tool_function(function, **options)
    return toolkit


def names(toolkit: Toolkit) -> list[str]:
    """The tools that a model is told of."""
    return [schema["function"]["name"] for schema in toolkit.get_json_schemas()]


class FakeSource:
    """A source whose tools are functions; ``offer`` gives it others."""

    def __init__(self, name: str, *functions: Callable[..., Any], **named: Callable[..., Any]) -> None:
        self.name = name
        self.tools: Mapping[str, Tool] = {}
        self.offer(*functions, **named)

    def offer(self, *functions: Callable[..., Any], **named: Callable[..., Any]) -> None:
        """Replace the tools."""
        by_name = {**{function.__name__: function for function in functions}, **named}
        self.tools = {name: FunctionTool(function, name=name) for name, function in by_name.items()}


class Bench(AgentApp):
    """Has a toolkit with a group, and does what the metadata says."""

    toolkit: Toolkit

    async def on_startup(self) -> None:
        """Make the toolkit."""
        self.toolkit = Toolkit()
        self.toolkit.create_tool_group("web", "The web", notes="Be quick.")

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        """Do the work, and leave what it gives."""
        ctx.metadata["result"] = await ctx.metadata["work"](self.toolkit, ctx)
        yield Msg("assistant", "done", "assistant")


def bench() -> Runtime:
    """A runtime that serves ``Bench``."""
    return Runtime(settings(), app=Bench)


def toolkit_in(rt: Runtime) -> Toolkit:
    """The toolkit of a runtime that serves ``Bench``."""
    return cast("Bench", rt.app).toolkit


async def inside(rt: Runtime, session_id: str, work: Work[_T]) -> _T:
    """What ``work(toolkit, ctx)`` gives, done in an invocation of that session."""
    metadata: dict[str, Any] = {"work": work}
    async for _ in rt.invoke("go", session_id=session_id, metadata=metadata):
        pass
    return cast("_T", metadata["result"])
