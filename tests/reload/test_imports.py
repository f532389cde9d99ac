"""The modules of a project, when a start of it is given up."""

import sys
import threading
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


def test_modules_are_forgotten_while_other_threads_import(tmp_path: Path) -> None:
    is_over = threading.Event()

    def import_others() -> None:
        names = [f"another_{number}" for number in range(1000)]
        while not is_over.is_set():
            for name in names:
                sys.modules[name] = ModuleType(name)
            for name in names:
                del sys.modules[name]

    importing = threading.Thread(target=import_others)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    importing.start()
    try:
        for _ in range(200):
            modules = ProjectModules(tmp_path)
            modules.install()
            modules.remove()
            assert modules.package not in sys.modules
    finally:
        is_over.set()
        importing.join()
        sys.setswitchinterval(interval)
