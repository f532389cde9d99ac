"""A tool out of what is registered: a function, a tool, or a toolkit's own ``reset_equipped_tools``."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, TypeGuard

from agentscope.tool._adapted import adapted
from agentscope.tool._function import FunctionTool
from agentscope.tool._groups import RESET, GroupedTools, GroupReset
from agentscope.tool._port import Tool
from agentscope.tool._schema import check_tool_schema


def make_tool(
    it: object,
    *,
    name: str | None,
    description: str | None,
    preset_kwargs: Mapping[str, Any] | None,
    json_schema: Mapping[str, Any] | None,
    include_long_description: bool,
    include_var_keyword: bool,
) -> Tool:
    """See ``Toolkit.register_tool_function``."""
    toolkit = getattr(it, "__self__", None)
    if isinstance(toolkit, GroupedTools) and getattr(it, "__name__", "") == RESET:
        if preset_kwargs or json_schema is not None:
            raise TypeError(f"{RESET} takes no preset_kwargs and no json_schema: it has the groups of the moment")
        return GroupReset(toolkit, description)
    if _is_tool(it):
        by_hand = {} if json_schema is None else deepcopy(check_tool_schema(json_schema))
        return adapted(
            it,
            description=description or by_hand.get("description"),
            parameters=by_hand.get("parameters"),
            preset_kwargs=preset_kwargs,
        )
    if _is_callable(it):
        return FunctionTool(
            it,
            name=name,
            description=description,
            preset_kwargs=preset_kwargs,
            json_schema=json_schema,
            include_long_description=include_long_description,
            include_var_keyword=include_var_keyword,
        )
    raise TypeError(f"a tool must be a function, not a {type(it).__name__}")


def _is_tool(it: object) -> TypeGuard[Tool]:
    # A class of tools is not one of them.
    return not isinstance(it, type) and all(
        hasattr(it, name) for name in ("name", "description", "parameters", "call")
    )


def _is_callable(it: object) -> TypeGuard[Callable[..., Any]]:
    return callable(it)
