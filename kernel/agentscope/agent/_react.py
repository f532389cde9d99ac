"""``ReActAgent``: a model that reasons, calls tools, reads their results, and goes on until it has an answer."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, ClassVar, cast

from pydantic import BaseModel

from agentscope.agent._base import AgentBase
from agentscope.agent._roles import received, seen_by
from agentscope.agent._speech import Speech
from agentscope.agent._structured import FINISH, StructuredOutput
from agentscope.errors import StructuredOutputError
from agentscope.memory import InMemoryMemory, MemoryBase
from agentscope.message import Msg, ToolResultBlock, ToolUseBlock
from agentscope.model import ChatChunk, ChatModel, ToolChoice, ToolSchema
from agentscope.tool import Toolkit, ToolOutput, ToolResponse

_OUT_OF_STEPS = "You have used up your steps. Answer now, without tools, with what you know."
_NO_OUTPUT_YET = f"Call {FINISH} to give your answer in the form that is asked for."
_INTERRUPTED = "The tool call was interrupted before it gave a result."


class ReActAgent(AgentBase):
    """An agent that reasons and acts in turn, with the names of AgentScope v1.

    ``model`` is a chat model, such as ``runtime.models.main``. ``toolkit`` holds its tools, None means none;
    ``memory`` keeps the conversation, None means a new ``InMemoryMemory``. One object serves every session, each with
    a conversation of its own. With ``parallel_tool_calls`` the calls of one step run side by side. ``max_iters`` is
    how many steps it may take; then it answers without tools. ``enable_meta_tool`` lets the model switch groups of
    tools. ``formatter`` is taken for v1's sake and not needed: models format messages themselves.
    """

    _hooked_methods: ClassVar[Mapping[str, str]] = {
        **AgentBase._hooked_methods,
        "reasoning": "_reasoning",
        "acting": "_acting",
    }

    name: str
    _sys_prompt: str

    def __init__(
        self,
        name: str,
        sys_prompt: str,
        model: ChatModel,
        formatter: object = None,
        toolkit: Toolkit | None = None,
        memory: MemoryBase | None = None,
        *,
        enable_meta_tool: bool = False,
        parallel_tool_calls: bool = False,
        max_iters: int = 10,
    ) -> None:
        super().__init__()
        if not hasattr(model, "stream"):
            raise TypeError(f"model is a {type(model).__name__}: it must be a chat model, such as runtime.models.main")
        if max_iters < 1:
            raise ValueError(f"max_iters is {max_iters}: an agent needs at least one step")
        self.name = name
        self._sys_prompt = sys_prompt
        self.model = model
        self.toolkit = Toolkit() if toolkit is None else toolkit
        self.memory: MemoryBase = InMemoryMemory() if memory is None else memory
        self.parallel_tool_calls = parallel_tool_calls
        self.max_iters = max_iters
        if enable_meta_tool:
            self.toolkit.register_tool_function(self.toolkit.reset_equipped_tools, namesake_strategy="skip")
        self.register_state("name")
        self.register_state("_sys_prompt")

    @property
    def sys_prompt(self) -> str:
        """What the model is told before the conversation."""
        return self._sys_prompt

    @sys_prompt.setter
    def sys_prompt(self, text: str) -> None:
        self._sys_prompt = text

    async def reply(
        self, msg: Msg | Sequence[Msg] | None = None, structured_model: type[BaseModel] | None = None
    ) -> Msg:
        """Answer ``msg``, or go on without anything new when it is None.

        With ``structured_model`` the answer is validated against it and is in the reply's ``metadata``, as JSON
        values. Raises ``ModelError``, and ``StructuredOutputError`` when ``max_iters`` steps gave no valid output.
        """
        output = None if structured_model is None else StructuredOutput(structured_model)
        try:
            await self.memory.add(received(self.name, msg))
            return await self._solve(output)
        except BaseException:
            await self._close_open_calls()
            raise

    async def observe(self, msg: Msg | Sequence[Msg] | None) -> None:
        """Remember messages without answering them."""
        await self.memory.add(received(self.name, msg))

    async def handle_interrupt(self, *args: Any, **kwargs: Any) -> Msg:
        """Say that the reply was interrupted, and remember it."""
        msg = await super().handle_interrupt(*args, **kwargs)
        await self.memory.add(msg)
        return msg

    async def _solve(self, output: StructuredOutput | None) -> Msg:
        for _ in range(self.max_iters):
            said = await self._reasoning("required" if output else None, output)
            calls = said.get_content_blocks("tool_use")
            if calls:
                await self._act(calls, output)
            if output is None:
                if not calls:
                    return said
            elif output.value is not None:
                return await self._finish(said, output)
        if output is not None:
            raise StructuredOutputError(self.name, output.problem)
        return await self._summarize()

    async def _reasoning(self, tool_choice: ToolChoice | None = None, output: StructuredOutput | None = None) -> Msg:
        """One call of the model: what it says, remembered."""
        hint = _NO_OUTPUT_YET if output is not None and await self._ends_with_words() else None
        schemas = self.toolkit.get_json_schemas()
        if output is not None:
            schemas.append(output.schema)
        said = await self._listen(schemas, tool_choice, hint)
        await self.memory.add(said)
        return said

    async def _acting(self, tool_call: ToolUseBlock, output: StructuredOutput | None = None) -> Msg:
        """One call of a tool: its result, as a message. It never fails because of the tool."""
        result: ToolResultBlock = {
            "type": "tool_result",
            "id": tool_call["id"],
            "name": tool_call["name"],
            "output": [],
        }
        msg = Msg("system", [result], "system")
        if output is not None and tool_call["name"] == FINISH:
            return await self._show_result(msg, result, output.take(tool_call))
        async with aclosing(self.toolkit.call_tool_function(tool_call)) as responses:
            async for response in responses:
                msg = await self._show_result(msg, result, response)
        return msg

    async def _show_result(self, msg: Msg, result: ToolResultBlock, response: ToolResponse) -> Msg:
        # A block of its own for each part: who reads the one before still holds it.
        now: ToolResultBlock = {**result, "output": response.content}
        shown = Msg(msg.name, [now], msg.role, id=msg.id)
        await self.print(shown, response.is_last)
        return shown

    async def _act(self, calls: Sequence[ToolUseBlock], output: StructuredOutput | None) -> None:
        if len(calls) == 1 or not self.parallel_tool_calls:
            for call in calls:
                await self.memory.add(await self._acting(call, output))
            return
        acting: list[asyncio.Task[Msg]] = []
        try:
            async with asyncio.TaskGroup() as group:
                acting.extend(group.create_task(self._acting(call, output)) for call in calls)
        except BaseExceptionGroup as failures:
            # One hook that failed is the failure of the reply.
            raise failures.exceptions[0] from failures
        finally:
            done = [task for task in acting if task.done() and not task.cancelled() and task.exception() is None]
            await self.memory.add([task.result() for task in done])

    async def _listen(
        self, schemas: Sequence[ToolSchema], tool_choice: ToolChoice | None, hint: str | None = None
    ) -> Msg:
        messages = [Msg("system", self.sys_prompt, "system")] if self.sys_prompt else []
        messages += seen_by(self.name, await self.memory.get_memory())
        if hint is not None:
            messages.append(Msg("user", hint, "user"))
        speech = Speech(self.name, self.print)
        chunks = self.model.stream(messages, tools=schemas or None, tool_choice=tool_choice if schemas else None)
        try:
            async for chunk in chunks:
                await speech.say(chunk)
        except asyncio.CancelledError:
            # What was said was heard. Calls that nobody carries out are left out.
            partial = speech.message(calls=False)
            if partial.content:
                await self.memory.add(partial)
            raise
        finally:
            if hasattr(chunks, "aclose"):
                await cast("AsyncGenerator[ChatChunk, None]", chunks).aclose()
        return await speech.end()

    async def _finish(self, said: Msg, output: StructuredOutput) -> Msg:
        text = said.get_text_content()
        reply = Msg(self.name, text or output.text, "assistant", output.value)
        # A text that the model wrote beside its output has been shown already.
        await self.print(Msg(self.name, "" if text else output.text, "assistant", output.value, id=reply.id))
        return reply

    async def _summarize(self) -> Msg:
        # The tools are still named: a conversation that holds calls of them needs that. None may be called.
        said = await self._listen(self.toolkit.get_json_schemas(), "none", _OUT_OF_STEPS)
        if said.has_content_blocks("tool_use"):
            rest = [block for block in said.get_content_blocks() if block["type"] != "tool_use"]
            said = Msg(said.name, rest, said.role, id=said.id)
        await self.memory.add(said)
        return said

    async def _ends_with_words(self) -> bool:
        messages = await self.memory.get_memory()
        return bool(messages) and messages[-1].role == "assistant" and messages[-1].name == self.name

    async def _close_open_calls(self) -> None:
        """Give every call of a tool that has no result one that says so: without it vendors refuse what follows."""
        answered: set[str] = set()
        for msg in reversed(await self.memory.get_memory()):
            answered.update(block["id"] for block in msg.get_content_blocks("tool_result"))
            calls = msg.get_content_blocks("tool_use")
            if calls or msg.role == "user":
                await self.memory.add([_interrupted(call) for call in calls if call["id"] not in answered])
                return


def _interrupted(call: ToolUseBlock) -> Msg:
    output: list[ToolOutput] = [{"type": "text", "text": _INTERRUPTED}]
    result: ToolResultBlock = {"type": "tool_result", "id": call["id"], "name": call["name"], "output": output}
    return Msg("system", [result], "system")
