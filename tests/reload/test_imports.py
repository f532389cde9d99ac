"""The modules of a project, when a start of it is given up."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from agentscope.runtime._imports import ProjectModules


class GivenUp(ProjectModules):
    """Removed while a module is looked for: the thread that imports goes on."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        found = super().find_spec(fullname, path, target)
        self.remove()
        return found


def test_a_module_that_is_imported_after_its_project_was_given_up_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("NAME = 'app'\n")
    modules = GivenUp(tmp_path)
    modules.install()
    # Nobody waits for it any more, whatever Python makes of a package that went meanwhile.
    with suppress(KeyError):
        modules.load("app")
    assert [name for name in sys.modules if name.startswith(modules.package)] == []
