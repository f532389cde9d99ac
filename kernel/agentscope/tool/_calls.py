"""One call of a tool: what it answers, whatever goes wrong, and its end."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterable, Mapping
from dataclasses import replace
from inspect import isawaitable
from typing import Any, Final, cast

from agentscope.errors import ToolArgumentsError, ToolError
from agentscope.message import ToolUseBlock
from agentscope.module import OwnedStream
from agentscope.tool._callables import is_async
from agentscope.tool._closing import close_all
from agentscope.tool._guards import is_mapping
from agentscope.tool._registered import RegisteredTool
from agentscope.tool._response import ToolResponse
from agentscope.tool._results import as_response
from agentscope.tool._texts import cut, sendable
from agentscope.tool._threads import in_thread
from agentscope.tool._watched import WatchedCall

_log = logging.getLogger("agentscope.tool")

ERROR_CHARS: Final = 2000
"""How much a model is told of an error."""

Handler = Callable[..., Awaitable[AsyncIterator[ToolResponse]]]
"""What a middleware calls: ``await next_handler(**kwargs)`` gives the responses of all that is further inside."""

Middleware = Callable[[dict[str, Any], Handler], AsyncIterator[ToolResponse] | Awaitable[AsyncIterator[ToolResponse]]]
"""Stands around every call: an async generator function of ``kwargs``, ``{"tool_call": …}``, and a handler."""


class ToolCall(OwnedStream[ToolResponse]):
    """A call of a tool while it is made: its responses, of which each holds all of the output so far.

    It raises nothing because of the model or the tool: what goes wrong is a response, with ``is_error`` in its
    metadata. There is at least one response, and the last has ``is_last``. Awaiting it gives itself, as AgentScope v1
    has it. It belongs to the invocation that made it, which closes it at the latest when the invocation ends; close
    it sooner with ``aclose()``.
    """

    def __init__(
        self,
        tool_call: ToolUseBlock,
        answer: Callable[[ToolUseBlock], AsyncIterator[ToolResponse]],
        middlewares: Iterable[Middleware] = (),
        has_tool: Callable[[str], bool] = lambda _: True,
    ) -> None:
        super().__init__()
        self._has_tool = has_tool
        self._opened: list[object] = []
        self._begin(self._read(tool_call, self._around(answer, middlewares)))

    def __await__(self) -> Generator[Any, None, "ToolCall"]:
        return self._itself().__await__()

    async def _itself(self) -> "ToolCall":
        return self

    async def _read(self, tool_call: ToolUseBlock, handler: Handler) -> AsyncGenerator[ToolResponse, None]:
        last: ToolResponse | None = None
        end: ToolResponse | None = None
        tool = str(tool_call.get("name"))
        self._note_reader()
        watched = WatchedCall(tool_call, self._has_tool)
        watched.enter()
        try:
            try:
                async for response in await handler(tool_call=tool_call):
                    self._proceed()
                    last = _checked(response)
                    watched.leave()
                    yield last
                    watched.enter()
                    self._note_reader()
                end = _end(last)
            except (Exception, SystemExit) as error:
                # A middleware's own, or a tool's whose class breaks the port.
                end = failed(tool, error, last)
            finally:
                # From the outside in. A middleware leaves what it reads to the garbage collector.
                await close_all(self._opened)
        except BaseException as error:
            watched.end(error)
            if not isinstance(error, asyncio.CancelledError) or not self._is_stopped_by_aclose():
                raise
            return
        finally:
            watched.end(None, end or last)
            self._end()
        if end is not None:
            yield end

    def _around(
        self, answer: Callable[[ToolUseBlock], AsyncIterator[ToolResponse]], middlewares: Iterable[Middleware]
    ) -> Handler:
        async def innermost(tool_call: ToolUseBlock, **_: Any) -> AsyncIterator[ToolResponse]:
            responses = answer(tool_call)
            self._opened.append(responses)
            return responses

        handler: Handler = innermost
        for middleware in reversed([*middlewares]):
            handler = self._layer(middleware, handler)
        return handler

    def _layer(self, middleware: Middleware, inner: Handler) -> Handler:
        async def layer(**kwargs: Any) -> AsyncIterator[ToolResponse]:
            responses = middleware(kwargs, inner)
            if isawaitable(responses):
                responses = await responses
            self._opened.append(responses)
            return responses

        return layer

    def _proceed(self) -> None:
        if self._closing:
            # The tool answered its cancellation with a response: it gets no further.
            raise asyncio.CancelledError


async def answer(registered: RegisteredTool, tool_call: ToolUseBlock) -> AsyncGenerator[ToolResponse, None]:
    """Call a tool; what it raises is a last response, after what it had so far."""
    last: ToolResponse | None = None
    failure: ToolResponse | None = None
    opened: list[AsyncIterator[ToolResponse]] = []
    try:
        opened.append(registered.tool.call(_arguments(registered.name, tool_call)))
        if registered.timeout is not None:
            opened.append(_timed(opened[0], registered.timeout))
        async for response in opened[-1]:
            last = response
            yield response if registered.postprocess is None else await _postprocessed(registered, tool_call, response)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling() > 0:
            raise
        # Nobody cancelled the call: the tool waited for something of its own that was.
        failure = failed(registered.name, error, last)
    except (Exception, SystemExit) as error:
        failure = failed(registered.name, error, last)
    finally:
        await close_all(reversed(opened))
    if failure is not None:
        yield failure if registered.postprocess is None else await _postprocessed(registered, tool_call, failure)


def refused(reason: str) -> ToolResponse:
    """The response for a call that is not made."""
    return ToolResponse.of_text(f"Error: {cut(sendable(reason), ERROR_CHARS)}", is_error=True)


def failed(tool: str, error: BaseException, so_far: ToolResponse | None) -> ToolResponse:
    """The response for a call that failed: what it had so far, and the error in words for the model. It is logged."""
    if isinstance(error, ToolArgumentsError):
        # The model's mistake, and the model mends it. What it wrote is not for the log.
        _log.info("a model's arguments do not fit tool %s", tool)
        response = refused(f"invalid arguments for {tool}: {'; '.join(error.problems)}")
    else:
        if isinstance(error, ToolError):
            # It says all there is to say; a traceback would lead through our own code alone.
            _log.warning("tool %s failed: %s", tool, _text(error))
        else:
            _log.warning("tool %s failed", tool, exc_info=error)
        response = refused(": ".join(filter(None, (type(error).__name__, _text(error)))))
    if so_far is None:
        return response
    return replace(
        so_far,
        content=[*so_far.content, *response.content],
        metadata={**(so_far.metadata or {}), "is_error": True},
        is_last=True,
    )


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        # An error that can't even be told is no more than its type.
        return ""


def _arguments(tool: str, tool_call: ToolUseBlock) -> Mapping[str, Any]:
    arguments: Any = tool_call.get("input")
    if arguments is None:
        arguments = {}
    if tool_call.get("raw_input") is not None or not is_mapping(arguments):
        raise ToolArgumentsError(tool, ["they are not a JSON object"])
    return arguments


async def _timed(responses: AsyncIterator[ToolResponse], seconds: float) -> AsyncGenerator[ToolResponse, None]:
    """The responses, as long as waiting for them takes no longer than that, all in all."""
    now = asyncio.get_running_loop().time
    left = seconds
    while True:
        began = now()
        limit = asyncio.timeout(left)
        try:
            async with limit:
                response = await anext(responses)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            if limit.expired():
                raise TimeoutError(f"no answer within {seconds:g} seconds") from error
            raise
        left -= now() - began
        yield response


async def _postprocessed(registered: RegisteredTool, tool_call: ToolUseBlock, response: ToolResponse) -> ToolResponse:
    postprocess = cast("Callable[..., Any]", registered.postprocess)
    if is_async(postprocess):
        other = await postprocess(tool_call, response)
    else:
        other = await in_thread(postprocess, tool_call, response)
    if other is None:
        return response
    other = _checked(other)
    if response.is_last or not other.is_last:
        return other
    return replace(other, stream=True, is_last=False)


def _checked(response: object) -> ToolResponse:
    if isinstance(response, ToolResponse):
        return response
    raise TypeError(f"a tool's response must be a ToolResponse, not a {type(response).__name__}")


def _end(last: ToolResponse | None) -> ToolResponse | None:
    if last is None:
        return as_response(None)
    return None if last.is_last else replace(last, is_last=True)
