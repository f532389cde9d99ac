"""What is registered in a toolkit, and what happens when a name is taken."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar, get_args

from agentscope.errors import ToolNameError
from agentscope.module import SessionLocal
from agentscope.tool._groups import GroupedTools
from agentscope.tool._port import ToolSource
from agentscope.tool._registered import NamesakeStrategy, RegisteredTool, numbered
from agentscope.tool._sources import Merged, RegisteredSource, merge

_T = TypeVar("_T")


class Registry(GroupedTools):
    """The functions and sources of a toolkit. What is registered inside an invocation belongs to its session."""

    _functions: SessionLocal[Mapping[str, RegisteredTool]] = SessionLocal()
    _sources: SessionLocal[Mapping[str, RegisteredSource]] = SessionLocal()

    def __init__(self) -> None:
        super().__init__()
        self._functions = MappingProxyType({})
        self._sources = MappingProxyType({})
        self._merged: Merged | None = None

    @property
    def tools(self) -> Mapping[str, RegisteredTool]:
        """All tools by name in the order of their registration, those of inactive groups too, as they are now."""
        functions, sources = self._functions, self._sources
        if not sources:
            return functions
        merged = self._merged
        if merged is None or not merged.is_of(functions, sources):
            merged = self._merged = merge(functions, sources)
        return merged.tools

    @property
    def sources(self) -> Mapping[str, ToolSource]:
        """The sources by name, as they are now."""
        return MappingProxyType({name: registered.source for name, registered in self._sources.items()})

    def _add_tool(self, tool: RegisteredTool, strategy: NamesakeStrategy) -> None:
        _check_strategy(strategy)
        with self._changing:
            self._require_groups([tool.group])
            tool = replace(tool, order=self._next_order())
            taken = self.tools.get(tool.name)
            if taken is not None:
                if strategy == "skip":
                    return
                if strategy == "raise":
                    raise ToolNameError(
                        f"there is a tool named {tool.name!r} already, of {taken.origin}: "
                        "give this one another name with func_name, or choose a namesake_strategy"
                    )
                if strategy == "rename":
                    tool = replace(tool, name=numbered(tool.name, self.tools))
                elif taken.source is None:
                    tool = replace(tool, order=taken.order)
                else:
                    self._remove([taken])
            self._functions = MappingProxyType({**self._functions, tool.name: tool})

    def _add_source(self, new: RegisteredSource, strategy: NamesakeStrategy) -> None:
        _check_strategy(strategy)
        with self._changing:
            self._require_groups([new.group])
            if new.name in self._sources:
                raise ToolNameError(f"there is an MCP server named {new.name!r} already")
            new.order = self._next_order()
            tools = self.tools
            taken = [tools[name] for name in new.offers() if name in tools]
            if taken and strategy == "raise":
                whose = ", ".join(f"{tool.name!r} ({tool.origin})" for tool in taken)
                raise ToolNameError(
                    f"MCP server {new.name!r} has tools whose names are taken: {whose}; give the server a `prefix`, "
                    "the function another name with func_name, or choose a namesake_strategy"
                )
            if taken and strategy == "skip":
                new = replace(new, hidden=frozenset(tool.name for tool in taken))
            elif taken and strategy == "rename":
                names = {*tools, *new.offers()}
                renamed: dict[str, str] = {}
                for tool in taken:
                    renamed[tool.name] = numbered(tool.name, names)
                    names.add(renamed[tool.name])
                new = replace(new, renamed=renamed)
            elif taken:
                self._remove(taken)
            self._sources = MappingProxyType({**self._sources, new.name: new})

    def _remove(self, tools: Iterable[RegisteredTool]) -> None:
        """Take functions out, and leave tools of sources out for good."""
        functions, sources = dict(self._functions), dict(self._sources)
        for tool in tools:
            if tool.source is None:
                del functions[tool.name]
            else:
                source = sources[tool.source]
                sources[tool.source] = replace(source, hidden=source.hidden | {tool.name})
        self._functions, self._sources = MappingProxyType(functions), MappingProxyType(sources)

    def _next_order(self) -> int:
        registered: list[RegisteredTool | RegisteredSource] = [*self._functions.values(), *self._sources.values()]
        return 1 + max((each.order for each in registered), default=0)


def only(registered: Mapping[str, _T], kept: Callable[[_T], bool]) -> Mapping[str, _T]:
    """Those that are kept, as another mapping."""
    return MappingProxyType({name: each for name, each in registered.items() if kept(each)})


def _check_strategy(strategy: str) -> None:
    if strategy not in get_args(NamesakeStrategy):
        raise ValueError(f"no namesake_strategy {strategy!r} (there are: {', '.join(get_args(NamesakeStrategy))})")
