"""A project folder to load, with an environment of its own: nothing of the process's leaks into these tests."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

import pytest

from agentscope.runtime.settings import ConfigurationError, Flag, LoadedSettings, Problem, load_settings


@dataclass
class Project:
    folder: Path
    environment: dict[str, str] = field(default_factory=dict[str, str])

    def write(self, text: str | bytes, name: str = "agentapp.yaml") -> "Project":
        """Write a file of the project; the indentation that all lines have in common is no part of it."""
        content = dedent(text).encode() if isinstance(text, str) else text
        (self.folder / name).write_bytes(content)
        return self

    def load(self, *assignments: str, flags: Mapping[str, Flag] | None = None) -> LoadedSettings:
        return load_settings(self.folder, assignments=assignments, flags=flags, environment=self.environment)

    def problems(self, *assignments: str) -> list[Problem]:
        """The problems that loading is refused for."""
        with pytest.raises(ConfigurationError) as caught:
            self.load(*assignments)
        assert len(str(caught.value).splitlines()) == len(caught.value.problems)
        return list(caught.value.problems)

    def problem(self, *assignments: str) -> Problem:
        """The one problem that loading is refused for."""
        problems = self.problems(*assignments)
        assert len(problems) == 1, problems
        return problems[0]
