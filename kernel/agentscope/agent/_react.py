"""``ReActAgent``: a model that reasons, calls tools, reads their results, and goes on until it has an answer."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any, ClassVar, cast

from pydantic import BaseModel

from agentscope.agent._base import AgentBase
from agentscope.agent._results import missing_results, result_of
from agentscope.agent._roles import received, seen_by
from agentscope.agent._speech import Speech
from agentscope.agent._structured import FINISH, StructuredOutput
from agentscope.errors import StructuredOutputError
from agentscope.memory import InMemoryMemory, MemoryBase
from agentscope.message import Msg, ToolUseBlock
from agentscope.model import ChatChunk, ChatModel, ToolChoice, ToolSchema
from agentscope.tool import Toolkit

_log = logging.getLogger("agentscope.agent")

_OUT_OF_STEPS = "You have used up your steps. Answer now, without tools, with what you know."
_NO_OUTPUT_YET = f"Call {FINISH} to give your answer in the form that is asked for."

# What the reply that is being made was asked for. Not an argument: `_reasoning` and `_acting` have those of v1.
_wanted: ContextVar[StructuredOutput | None] = ContextVar("agentscope_structured_output", default=None)


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
        if not callable(getattr(model, "stream", None)):
            raise TypeError(f"model is a {type(model).__name__}: it must be a chat model, such as runtime.models.main")
        _check(toolkit, "call_tool_function", "toolkit", "a Toolkit, such as runtime.tools")
        _check(memory, "get_memory", "memory", "a memory, such as InMemoryMemory()")
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
        token = _wanted.set(output)
        try:
            await self._hear(received(self.name, msg))
            return await self._solve(output)
        except BaseException:
            try:
                await self._close_open_calls()
            except Exception:
                # Why the reply ended is what the caller must see.
                _log.exception("agent %s could not close its open calls of tools", self.name)
            raise
        finally:
            _wanted.reset(token)

    async def observe(self, msg: Msg | Sequence[Msg] | None) -> None:
        """Remember messages without answering them."""
        await self.memory.add(msg)

    async def handle_interrupt(self, *args: Any, **kwargs: Any) -> Msg:
        """Say that the reply was interrupted, and remember it."""
        msg = await super().handle_interrupt(*args, **kwargs)
        await self.memory.add(msg)
        return msg

    async def __call__(self, *args: Any, **kwargs: Any) -> Msg:
        """The agent's reply. Raises ``RuntimeError`` while it makes another one in the same session."""
        if self.is_replying:
            # Two at once would mix their messages, and vendors refuse what comes between a call and its result.
            raise RuntimeError(
                f"{self.name} is making a reply in this session already: await that one first, or use another agent"
            )
        return await super().__call__(*args, **kwargs)

    async def _hear(self, given: Sequence[Msg]) -> None:
        await self.memory.add(given)
        if not given:
            return
        newest, memory = given[-1], await self.memory.get_memory()
        if not memory or (memory[-1].name, memory[-1].content) != (newest.name, newest.content):
            # Clients repeat their ids: what is to be answered is new all the same.
            await self.memory.add(Msg(newest.name, newest.content, newest.role, newest.metadata))

    async def _solve(self, output: StructuredOutput | None) -> Msg:
        task = asyncio.current_task()
        before = 0 if task is None else task.cancelling()
        for _ in range(self.max_iters):
            said = await self._reasoning("required" if output else None)
            calls = said.get_content_blocks("tool_use")
            if calls:
                await self._act(calls)
                task = asyncio.current_task()
                if task is not None and task.cancelling() > before:
                    # One that is on its way comes through here; one that a tool caught ends the reply all the same.
                    await asyncio.sleep(0)
                    raise asyncio.CancelledError
            if output is None:
                if not calls:
                    return said
            elif output.value is not None:
                return await self._finish(said, output)
        if output is not None:
            raise StructuredOutputError(self.name, output.problem)
        return await self._summarize()

    async def _reasoning(self, tool_choice: ToolChoice | None = None) -> Msg:
        """One call of the model: what it says, remembered."""
        output = _wanted.get()
        hint = _NO_OUTPUT_YET if output is not None and await self._ends_with_words() else None
        schemas = self.toolkit.get_json_schemas()
        if output is not None:
            schemas.append(output.schema)
        said = await self._listen(schemas, tool_choice, hint)
        await self.memory.add(said)
        return said

    async def _acting(self, tool_call: ToolUseBlock) -> Msg:
        """One call of a tool: its result, as a message. It never fails because of the tool."""
        output = _wanted.get()
        msg = result_of(tool_call, [])
        if output is not None and tool_call["name"] == FINISH:
            msg = result_of(tool_call, output.take(tool_call).content)
            await self.print(msg)
            return msg
        is_last = True
        try:
            async with aclosing(self.toolkit.call_tool_function(tool_call)) as responses:
                async for response in responses:
                    msg, is_last = result_of(tool_call, response.content, id=msg.id), response.is_last
                    await self.print(msg, is_last)
        except asyncio.CancelledError:
            if not is_last:
                # Its reader is told that nothing more comes of it.
                await self.print(msg)
            raise
        return msg

    async def _act(self, calls: Sequence[ToolUseBlock]) -> None:
        if len(calls) == 1 or not self.parallel_tool_calls:
            for call in calls:
                await self.memory.add(await self._acting(call))
            return
        acting: list[asyncio.Task[Msg]] = []
        try:
            async with asyncio.TaskGroup() as group:
                acting.extend(group.create_task(self._acting(call)) for call in calls)
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
            return await speech.end()
        except asyncio.CancelledError:
            # What was said was heard. Calls that nobody carries out are left out.
            partial = speech.message(calls=False)
            if partial.content:
                await self.memory.add(partial)
            await speech.close()
            raise
        finally:
            if hasattr(chunks, "aclose"):
                await cast("AsyncGenerator[ChatChunk, None]", chunks).aclose()

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
        """Give every call of a tool that has no result one that says so."""
        results = missing_results(await self.memory.get_memory())
        await self.memory.add(results)
        for result in results:
            await self.print(result)


def _check(given: object, method: str, name: str, wanted: str) -> None:
    if given is not None and (isinstance(given, type) or not hasattr(given, method)):
        what = f"the class {given.__name__}" if isinstance(given, type) else f"a {type(given).__name__}"
        raise TypeError(f"{name} is {what}: it must be {wanted}")
