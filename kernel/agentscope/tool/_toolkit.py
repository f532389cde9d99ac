"""``Toolkit``: the tools that a model can call."""

import copy
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Self

from agentscope.errors import ToolNameError
from agentscope.message import ToolUseBlock
from agentscope.model import ToolSchema
from agentscope.module import SessionLocal
from agentscope.tool._calls import Middleware, ToolCall, answer, refused
from agentscope.tool._groups import GroupReset, as_names
from agentscope.tool._making import make_tool
from agentscope.tool._port import Tool, ToolSource
from agentscope.tool._registered import BASIC, NamesakeStrategy, Postprocess, RegisteredTool, check_name
from agentscope.tool._registry import Registry, only
from agentscope.tool._response import ToolResponse
from agentscope.tool._sources import RegisteredSource

_log = logging.getLogger("agentscope.tool")


class Toolkit(Registry):
    """Tools made of functions, and those of sources such as MCP servers, with the interface of AgentScope v1.

    One toolkit serves all sessions at once. What is registered before the runtime serves is there for every session;
    what is registered or removed inside an invocation, and which groups are active, belongs to its session. Saved
    with a session are the active groups alone.
    """

    _middlewares: SessionLocal[Mapping[int, Middleware]] = SessionLocal()

    def __init__(self) -> None:
        super().__init__()
        self._middlewares = MappingProxyType({})

    def register_tool_function(
        self,
        tool_func: Callable[..., Any] | Tool,
        group_name: str = BASIC,
        preset_kwargs: Mapping[str, Any] | None = None,
        func_name: str | None = None,
        func_description: str | None = None,
        json_schema: Mapping[str, Any] | None = None,
        include_long_description: bool = True,
        include_var_keyword: bool = False,
        postprocess_func: Postprocess | None = None,
        namesake_strategy: NamesakeStrategy = "raise",
    ) -> None:
        """Register a function, as ``FunctionTool`` describes it, or a tool.

        ``func_name`` and ``func_description`` replace its own, ``json_schema`` is what models are told in place of
        its own: ``{"type": "function", "function": {"parameters": …}}``. ``preset_kwargs`` are arguments that the
        model neither sees nor gives. ``postprocess_func(tool_call, response)`` may give another response for each.

        Raises ``ToolNameError`` for a name that is taken or can't be used and for an unknown group, ``TypeError`` for
        a parameter whose type has no JSON schema, and ``ValueError`` for a wrong ``json_schema``.
        """
        tool = make_tool(
            tool_func,
            name=func_name,
            description=func_description,
            preset_kwargs=preset_kwargs,
            json_schema=json_schema,
            include_long_description=include_long_description,
            include_var_keyword=include_var_keyword,
        )
        name = func_name or tool.name
        check_name(name)
        self._add_tool(RegisteredTool(name, tool, group_name, postprocess=postprocess_func), namesake_strategy)

    def remove_tool_function(self, tool_name: str, allow_not_exist: bool = True) -> None:
        """Remove a tool. One that isn't there raises ``ToolNameError`` when ``allow_not_exist`` is False."""
        with self._changing:
            tool = self.tools.get(tool_name)
            if tool is not None:
                self._remove([tool])
            elif not allow_not_exist:
                raise ToolNameError(f"there is no tool named {tool_name!r}")

    def remove_tool_groups(self, group_names: str | Iterable[str]) -> None:
        """Remove groups with their tools. Raises ``ToolNameError`` for "basic" and for an unknown group."""
        names = as_names(group_names)
        if BASIC in names:
            raise ToolNameError(f"the tool group {BASIC!r} can't be removed")
        with self._changing:
            self._require_groups(names)
            self._functions = only(self._functions, lambda tool: tool.group not in names)
            self._sources = only(self._sources, lambda source: source.group not in names)
            self._groups = only(self._groups, lambda group: group.name not in names)

    def clear(self) -> None:
        """Remove all tools, sources and groups."""
        with self._changing:
            self._functions, self._sources, self._groups = (MappingProxyType({}) for _ in range(3))

    async def register_mcp_client(
        self,
        mcp_client: ToolSource,
        group_name: str = BASIC,
        enable_funcs: Iterable[str] | None = None,
        disable_funcs: Iterable[str] | None = None,
        preset_kwargs_mapping: Mapping[str, Mapping[str, Any]] | None = None,
        postprocess_func: Postprocess | None = None,
        namesake_strategy: NamesakeStrategy = "raise",
        execution_timeout: float | None = None,
    ) -> None:
        """Register the tools of an MCP server or of another source, those it has now and those that come later.

        ``enable_funcs`` are the only ones to take (None for all), ``disable_funcs`` the ones to leave out, and
        ``preset_kwargs_mapping`` holds arguments by tool that the model neither sees nor gives; all three go by the
        source's own names. ``execution_timeout`` is how many seconds a call may take. A tool that appears later under
        a name that is taken is left out, and logged.

        Raises ``ToolNameError`` for a name that is taken now, for a source of the same name and for an unknown group.
        """
        enabled = None if enable_funcs is None else as_names(enable_funcs)
        disabled = as_names(disable_funcs or ())
        if enabled is not None and enabled & disabled:
            raise ValueError(f"both enabled and disabled: {', '.join(sorted(enabled & disabled))}")
        new = RegisteredSource(
            mcp_client,
            group_name,
            enabled=enabled,
            disabled=disabled,
            presets=dict(preset_kwargs_mapping or {}),
            postprocess=postprocess_func,
            timeout=execution_timeout,
        )
        self._add_source(new, namesake_strategy)

    def add_source(self, source: ToolSource) -> None:
        """``register_mcp_client`` with its defaults."""
        self._add_source(RegisteredSource(source), "raise")

    async def remove_mcp_clients(self, client_names: str | Iterable[str]) -> None:
        """Remove sources with their tools; names that aren't there are ignored."""
        names = as_names(client_names)
        with self._changing:
            self._sources = only(self._sources, lambda source: source.name not in names)

    def register_middleware(self, middleware: Middleware) -> None:
        """Put an async generator function around every call; the first that is registered is the outermost.

        ``middleware(kwargs, next_handler)`` gets ``{"tool_call": …}`` and yields responses, for example those of
        ``await next_handler(**kwargs)``. What it raises is told to the model, as what a tool raises is.
        """
        with self._changing:
            self._middlewares = MappingProxyType({**self._middlewares, len(self._middlewares): middleware})

    def get_json_schemas(self) -> list[ToolSchema]:
        """What a model is told of the tools of the active groups, in the order of their registration.

        The list is new at each call, what it holds is shared: don't change it.
        """
        active = self._active_groups()
        return [tool.json_schema for tool in self.tools.values() if tool.group in active]

    def call_tool_function(self, tool_call: ToolUseBlock) -> ToolCall:
        """Call a tool as a model wishes: ``async for response in toolkit.call_tool_function(tool_call)``.

        It runs while it is read, and never raises because of the model or the tool, see ``ToolCall``.
        """
        return ToolCall(tool_call, self._answer, self._middlewares.values(), lambda name: name in self.tools)

    def _answer(self, tool_call: ToolUseBlock) -> AsyncIterator[ToolResponse]:
        name, tools, active = str(tool_call.get("name")), self.tools, self._active_groups()
        tool = tools.get(name)
        if tool is None:
            close = get_close_matches(name[:64], (each.name for each in tools.values() if each.group in active))
            hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
            return _refusal(name, f"there is no tool named {name[:100]!r}{hint}")
        if tool.group not in active:
            reset = next((each.name for each in tools.values() if isinstance(each.tool, GroupReset)), None)
            hint = f": activate it with {reset}" if reset else ""
            return _refusal(name, f"the tool {name!r} belongs to the group {tool.group!r}, which is not active{hint}")
        return answer(tool, tool_call)

    def _twin(self, memo: dict[int, Any]) -> Self:
        twin = memo[id(self)] = type(self).__new__(type(self))
        # What is replaced and never changed can be shared, but for what acts on this toolkit.
        for value in (self._sources, self._middlewares, self._groups, self._changing):
            memo[id(value)] = value
        memo[id(self._functions)] = MappingProxyType(
            {
                name: replace(tool, tool=tool.tool.of(twin)) if isinstance(tool.tool, GroupReset) else tool
                for name, tool in self._functions.items()
            }
        )
        memo[id(self._merged)] = None
        twin.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return twin


async def _refusal(name: str, reason: str) -> AsyncGenerator[ToolResponse, None]:
    _log.info("a model called %.100r, which it does not have", name)
    yield refused(reason)
