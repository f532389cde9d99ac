"""Sources in a toolkit: their tools of the moment, and whose tool it is when two have the same name."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic_ns
from types import MappingProxyType
from typing import Any, NamedTuple

from agentscope.tool._adapted import adapted
from agentscope.tool._port import Tool, ToolSource
from agentscope.tool._registered import BASIC, Postprocess, RegisteredTool, is_usable

_log = logging.getLogger("agentscope.tool")


@dataclass(slots=True, eq=False)
class RegisteredSource:
    """A source in a toolkit. It is replaced, never changed, but for what it remembers of the source.

    ``enabled`` (None for all) and ``disabled`` choose among its tools by their own names; ``renamed`` gives some of
    them another one, ``hidden`` holds the names that belong to others. ``presets`` are arguments by tool.
    """

    source: ToolSource
    group: str = BASIC
    order: int = 0
    enabled: frozenset[str] | None = None
    disabled: frozenset[str] = frozenset()
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]], repr=False)
    postprocess: Postprocess | None = None
    timeout: float | None = None
    renamed: Mapping[str, str] = field(default_factory=dict[str, str])
    hidden: frozenset[str] = frozenset()
    _since: dict[str, int] = field(default_factory=dict[str, int], repr=False)
    _warned: set[str] = field(default_factory=set[str], repr=False)
    _read: tuple[Mapping[str, Tool], Mapping[str, RegisteredTool]] | None = field(default=None, init=False, repr=False)

    @property
    def name(self) -> str:
        """The source's name."""
        return self.source.name

    @property
    def origin(self) -> str:
        """What it is, in words."""
        return f"MCP server {self.name!r}"

    def offers(self) -> Mapping[str, RegisteredTool]:
        """Its tools of the moment by the names they have in the toolkit, whether or not another has the name too."""
        tools = self.source.tools
        read = self._read
        if read is None or read[0] is not tools:
            read = self._read = tools, self._offers(tools)
        return read[1]

    def since(self, name: str) -> int:
        """When it was first seen to offer the name, as a time that can only be compared."""
        return self._since[name]

    def warn(self, name: str, reason: str) -> None:
        """Log that a tool is left out, once."""
        if name not in self._warned:
            self._warned.add(name)
            _log.warning("tool %r of MCP server %r is left out: %s", name, self.name, reason)

    def _offers(self, tools: Mapping[str, Tool]) -> Mapping[str, RegisteredTool]:
        offers: dict[str, RegisteredTool] = {}
        for own_name, tool in tools.items():
            if own_name in self.disabled or (self.enabled is not None and own_name not in self.enabled):
                continue
            name = self.renamed.get(own_name, own_name)
            if name in self.hidden:
                continue
            if not is_usable(name):
                self.warn(name, "vendors take only names of 1 to 64 letters, digits, '_' and '-'")
                continue
            self._since.setdefault(name, monotonic_ns())
            shown = adapted(tool, preset_kwargs=self.presets.get(own_name))
            offers[name] = RegisteredTool(
                name, shown, self.group, self.order, self.name, self.postprocess, self.timeout
            )
        return offers


class Merged(NamedTuple):
    """All tools of a toolkit by name, and what they were made of: as long as that is the same, so are they."""

    functions: Mapping[str, RegisteredTool]
    sources: Mapping[str, RegisteredSource]
    read: list[Mapping[str, Tool]]
    tools: Mapping[str, RegisteredTool]

    def is_of(self, functions: Mapping[str, RegisteredTool], sources: Mapping[str, RegisteredSource]) -> bool:
        """Whether it was made of these, and no source has other tools now."""
        if self.functions is not functions or self.sources is not sources:
            return False
        return all(each.source.tools is tools for each, tools in zip(sources.values(), self.read, strict=True))


def merge(functions: Mapping[str, RegisteredTool], sources: Mapping[str, RegisteredSource]) -> Merged:
    """Put the tools of functions and sources together, in the order of their registration.

    A name belongs to the function that has it, else to the source that was seen first to offer it: no server takes
    another's tool over by offering one of the same name. A tool that is left out is logged, once.
    """
    read = [source.source.tools for source in sources.values()]
    offers = {source.name: source.offers() for source in sources.values()}
    owners: dict[str, RegisteredSource] = {}
    rivals = [(source.since(name), name, source) for source in sources.values() for name in offers[source.name]]
    for _, name, source in sorted(rivals, key=lambda rival: rival[0]):
        owners.setdefault(name, source)
    tools: dict[str, RegisteredTool] = {}
    registered: list[RegisteredTool | RegisteredSource] = [*functions.values(), *sources.values()]
    for each in sorted(registered, key=lambda each: each.order):
        if isinstance(each, RegisteredTool):
            tools[each.name] = each
            continue
        for name, tool in offers[each.name].items():
            owner = functions.get(name, owners[name])
            if owner is each:
                tools[name] = tool
            else:
                each.warn(name, f"there is one of this name already, of {owner.origin}; a `prefix` keeps them apart")
    return Merged(functions, sources, read, MappingProxyType(tools))
