"""``FunctionTool``: a Python callable as a tool."""

from collections.abc import AsyncGenerator, Callable, Mapping
from copy import deepcopy
from inspect import isawaitable
from typing import Any

from agentscope.tool._callables import documentation, is_async, name_of
from agentscope.tool._closing import close_all
from agentscope.tool._guards import is_async_iterator, is_generator
from agentscope.tool._parameters import Parameters
from agentscope.tool._response import ToolResponse
from agentscope.tool._results import as_response, as_stream
from agentscope.tool._schema import check_tool_schema
from agentscope.tool._threads import ThreadedGenerator, in_thread


class FunctionTool:
    """A tool made of a function, a method, a ``functools.partial`` or an object with ``__call__``.

    ``name`` is the function's unless it is given; ``description`` and the descriptions of the parameters come from
    the docstring, its long description only with ``include_long_description``. ``preset_kwargs`` go to the function
    at each call; the model neither sees nor overrides them. ``json_schema`` replaces the schema that is made of the
    annotations. ``include_var_keyword`` lets the model give arguments beyond those that have a name.

    A coroutine function runs where it is called, a synchronous function in a thread that sees the caller's session,
    and a plain generator step by step in threads. What they return or yield becomes a ``ToolResponse``: text stays
    text, content blocks stay blocks, None becomes "(no output)", anything else JSON. Strings that a generator yields
    are increments; its responses hold all of the output so far, and the last one has ``is_last``.

    Raises ``TypeError`` for a parameter whose type has no JSON schema, and ``ValueError`` for a wrong ``json_schema``.
    """

    __slots__ = ("_func", "_is_async", "_parameters", "description", "name", "parameters")

    def __init__(
        self,
        func: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        preset_kwargs: Mapping[str, Any] | None = None,
        json_schema: Mapping[str, Any] | None = None,
        include_long_description: bool = True,
        include_var_keyword: bool = False,
    ) -> None:
        by_hand = None if json_schema is None else deepcopy(check_tool_schema(json_schema))
        documented = documentation(func, include_long_description=include_long_description)
        self.name: str = name or name_of(func)
        self.description: str = description or (by_hand or {}).get("description") or documented.description
        self._func = func
        self._is_async = is_async(func)
        self._parameters = Parameters(
            func,
            self.name,
            descriptions=documented.parameters,
            preset=preset_kwargs or {},
            by_hand=None if by_hand is None else by_hand["parameters"],
            include_var_keyword=include_var_keyword,
        )
        self.parameters: Mapping[str, Any] = self._parameters.schema

    async def call(self, arguments: Mapping[str, Any]) -> AsyncGenerator[ToolResponse, None]:
        """Call the function with a model's arguments; what it raises comes out as it is.

        Raises ``ToolArgumentsError`` for arguments that don't fit. When the reader is cancelled or closes the
        iterator, a coroutine is cancelled and a generator closed; a step that runs in a thread runs on to its end.
        """
        args, kwargs = self._parameters.bind(arguments)
        if self._is_async:
            result = self._func(*args, **kwargs)
            if isawaitable(result):
                result = await result
        else:
            result = await in_thread(self._func, *args, **kwargs)
        if is_generator(result):
            result = ThreadedGenerator(result)
        if not is_async_iterator(result):
            yield as_response(result)
            return
        stream = as_stream(result)
        try:
            async for response in stream:
                yield response
        finally:
            await close_all([stream, result])

    def __repr__(self) -> str:
        return f"<tool {self.name!r}>"
