"""Groups of tools: which of them a model sees."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, replace
from threading import Lock
from types import MappingProxyType
from typing import Any, Final

from agentscope.errors import StateMismatchError, ToolArgumentsError, ToolNameError
from agentscope.module import SessionLocal, StateModule
from agentscope.tool._guards import is_list, is_mapping
from agentscope.tool._registered import BASIC
from agentscope.tool._response import ToolResponse

RESET: Final = "reset_equipped_tools"
"""The name of the tool by which a model switches groups."""

_DESCRIPTION: Final = (
    "Choose which groups of tools you have. Each call sets the state of ALL groups: those that you set to true are "
    "active afterwards, all others are not, whatever they were before. Activate what the task at hand needs, and "
    "leave a group out again when you are done with it. The answer holds the notes of the active groups: follow them."
)


@dataclass(frozen=True, slots=True)
class ToolGroup:
    """A group of tools. ``description`` tells the model what they are for, ``notes`` how to use them, None nothing."""

    name: str
    description: str
    notes: str | None = None
    active: bool = False


class GroupedTools(StateModule):
    """What a toolkit has to do with groups. Which are active is its state."""

    _groups: SessionLocal[Mapping[str, ToolGroup]] = SessionLocal()

    def __init__(self) -> None:
        super().__init__()
        # Tools run in threads, several of one session at a time.
        self._changing = Lock()
        self._groups = MappingProxyType({})

    @property
    def groups(self) -> Mapping[str, ToolGroup]:
        """The groups by name, as they are now in this session."""
        return self._groups

    def create_tool_group(
        self, group_name: str, description: str, active: bool = False, notes: str | None = None
    ) -> None:
        """Create a group. Raises ``ToolNameError`` when there is one of this name."""
        with self._changing:
            if group_name == BASIC or group_name in self._groups:
                raise ToolNameError(f"there is a tool group named {group_name!r} already")
            group = ToolGroup(group_name, description, notes, active)
            self._groups = MappingProxyType({**self._groups, group_name: group})

    def update_tool_groups(self, group_names: str | Iterable[str], active: bool) -> None:
        """Activate or deactivate groups; "basic" is always active. Raises ``ToolNameError`` for an unknown group."""
        names = as_names(group_names)
        with self._changing:
            self._require_groups(names)
            self._set_active({name: active for name in names})

    def get_activated_notes(self) -> str:
        """The notes of the active groups, each under a heading; "" when there are none."""
        noted = [group for group in self._groups.values() if group.active and group.notes]
        return "\n".join(f"## About Tool Group '{group.name}'\n{group.notes}" for group in noted)

    def reset_equipped_tools(self, /, **groups: bool) -> ToolResponse:
        """Activate the groups that are given as true, and deactivate all others.

        A model may do this when the method is registered as a tool; what it can choose from are then the groups of
        the moment. Raises ``ToolArgumentsError`` for an unknown group and for a value that is not a bool.
        """
        with self._changing:
            there = self._groups
            known = f"(there are: {', '.join(there) or 'none'})"
            problems = [f"there is no group {name[:80]!r} {known}" for name in groups if name not in there]
            problems += [f"{name}: must be true or false" for name, it in groups.items() if it not in (True, False)]
            if problems:
                raise ToolArgumentsError(RESET, problems)
            self._set_active({name: bool(groups.get(name)) for name in there})
            active = ", ".join(name for name in there if groups.get(name))
        notes = self.get_activated_notes()
        told = f"Active tool groups: {active}." if active else "No tool group is active now."
        return ToolResponse.of_text(f"{told} Follow these notes when you use them:\n{notes}" if notes else told)

    def state_dict(self) -> dict[str, Any]:
        """The state, as in AgentScope v1: ``{"active_groups": [names]}``."""
        active = [name for name, group in self._groups.items() if group.active]
        return {**super().state_dict(), "active_groups": active}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Take over a state; names of groups that are no longer there are ignored.

        Raises ``StateMismatchError`` when it is not what ``state_dict`` gives; without "active_groups" only when
        ``strict`` is true, otherwise the groups stay as they are.
        """
        active: object = state_dict.get("active_groups") if is_mapping(state_dict) else None
        if active is not None or strict:
            if not is_list(active) or not all(isinstance(name, str) for name in active):
                raise StateMismatchError(type(self).__name__, 'it is not {"active_groups": [names]}')
        super().load_state_dict(state_dict, strict)
        if is_list(active):
            with self._changing:
                self._set_active({name: name in active for name in self._groups})

    def _active_groups(self) -> set[str]:
        return {BASIC, *(group.name for group in self._groups.values() if group.active)}

    def _set_active(self, active: Mapping[str, bool]) -> None:
        groups = dict(self._groups)
        for name, it in active.items():
            if name != BASIC and groups[name].active != it:
                groups[name] = replace(groups[name], active=it)
        # A session that changes nothing takes no room.
        if groups != self._groups:
            self._groups = MappingProxyType(groups)

    def _require_groups(self, names: Iterable[str]) -> None:
        for name in names:
            if name != BASIC and name not in self._groups:
                known = ", ".join([BASIC, *self._groups])
                raise ToolNameError(f"there is no tool group named {name!r} (there are: {known})")


class GroupReset:
    """``reset_equipped_tools`` of a toolkit as a tool."""

    name = RESET

    def __init__(self, toolkit: GroupedTools, description: str | None = None) -> None:
        self.description = description or _DESCRIPTION
        self._toolkit = toolkit
        self._shown: tuple[Mapping[str, ToolGroup], Mapping[str, Any]] | None = None

    @property
    def parameters(self) -> Mapping[str, Any]:
        """A switch for each group there is now."""
        groups, shown = self._toolkit.groups, self._shown
        if shown is None or shown[0] is not groups:
            switches = {
                name: {"type": "boolean", "default": False, "description": group.description}
                for name, group in groups.items()
            }
            shown = self._shown = groups, {"type": "object", "properties": switches}
        return shown[1]

    def of(self, toolkit: GroupedTools) -> "GroupReset":
        """The same for another toolkit."""
        return GroupReset(toolkit, self.description)

    async def call(self, arguments: Mapping[str, Any]) -> AsyncGenerator[ToolResponse, None]:
        """See ``Tool.call``."""
        yield self._toolkit.reset_equipped_tools(**arguments)


def as_names(names: str | Iterable[str]) -> frozenset[str]:
    """The names, or the one name. Raises ``TypeError`` for anything else."""
    if isinstance(names, str):
        return frozenset({names})
    listed = frozenset(names)
    if not all(isinstance(name, str) for name in listed):  # pyright: ignore[reportUnnecessaryIsInstance] - as in v1
        raise TypeError("names must be strings")
    return listed
