"""The settings of a project together with where each of them came from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agentscope.runtime.settings._nodes import Node, descend
from agentscope.runtime.settings._tree import Settings


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """What ``load_settings`` found.

    ``settings`` is the tree, ``project`` the absolute path of the project's folder, ``config`` the file that was read.
    ``again`` finds it anew, whatever the working directory is by then.
    """

    settings: Settings
    project: Path
    config: Path
    root: Node = field(repr=False)
    """The values as they were written, secrets included; for this package alone."""
    again: "Callable[[], LoadedSettings]" = field(repr=False, compare=False)

    def origin(self, path: str) -> str:
        """Where the value of a dotted key came from.

        ``agentapp.yaml:4:14``, ``environment AGENTSCOPE_SERVER__PORT``, ``.env:3``, ``--set server.port``, ``--port``
        or ``default``. For a section it is where the section begins.
        """
        return self.origin_at([int(step) if step.isdecimal() else step for step in path.split(".")])

    def origin_at(self, steps: Sequence[str | int]) -> str:
        """``origin`` of a path whose steps may hold dots themselves, as the names of headers do."""
        nodes = list(descend(self.root, steps))
        if len(nodes) <= len(steps):
            return "default"
        found = nodes[-1]
        return (found.key_origin if isinstance(found.value, dict) else found.origin).text
