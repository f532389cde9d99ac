"""Importing a project's modules so that they belong to it alone.

``tools.py`` of two projects are two modules, and a project's ``logging.py`` is not everybody's. Each project is a
package with a name of its own; inside it, ``import tools`` means the file beside ``app.py`` when there is one.
"""

import builtins
import importlib
import itertools
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, cast

PROJECT_PACKAGE = "_agentscope_project_"
"""How the names of the packages begin that projects are."""

_numbers = itertools.count(1)


class ProjectModules(MetaPathFinder):
    """The modules of one project folder, between ``install`` and ``remove``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.package = f"{PROJECT_PACKAGE}{next(_numbers)}"
        self._ours: dict[str, bool] = {}
        self._builtins = {**vars(builtins), "__import__": self._import}

    def install(self) -> None:
        """Make the project's modules importable, for the project."""
        root = ModuleType(self.package)
        root.__path__ = [str(self.folder)]
        sys.modules[self.package] = root
        sys.meta_path.insert(0, self)
        for path, finder in list(sys.path_importer_cache.items()):
            # What they know of a folder may be older than its newest file.
            if finder is not None and Path(path).is_relative_to(self.folder):
                cast("Any", finder).invalidate_caches()

    def remove(self) -> None:
        """Forget the project's modules."""
        with suppress(ValueError):
            sys.meta_path.remove(self)
        # Of a copy, which is made in one go: other threads import meanwhile, or remove the same.
        for name in list(sys.modules):
            if name == self.package or name.startswith(self.package + "."):
                sys.modules.pop(name, None)

    def load(self, name: str) -> ModuleType:
        """Import the project's module of that dotted name, afresh the first time."""
        try:
            return importlib.import_module(f"{self.package}.{name}")
        finally:
            if self not in sys.meta_path:
                # A start that was given up meanwhile has removed what was there then; its thread has gone on.
                self.remove()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module of this project; None leaves every other to Python."""
        if not fullname.startswith(self.package + "."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _ProjectLoader(fullname, spec.loader.path, self._builtins)
        return spec

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        top = name.partition(".")[0]
        if level or not (self._ours[top] if top in self._ours else self._has(top)):
            return builtins.__import__(name, globals, locals, fromlist, level)
        module = builtins.__import__(f"{self.package}.{name}", globals, locals, fromlist, 0)
        return module if fromlist else sys.modules[f"{self.package}.{top}"]

    def _has(self, top: str) -> bool:
        # Remembered, because an import inside a function comes by here each time.
        self._ours[top] = self._is_there(top)
        return self._ours[top]

    def _is_there(self, top: str) -> bool:
        if (self.folder / f"{top}.py").is_file() or (self.folder / top / "__init__.py").is_file():
            return True
        # A folder without __init__.py is a package only when nothing else has the name, as everywhere in Python.
        return (self.folder / top).is_dir() and top not in sys.modules and PathFinder.find_spec(top) is None


class _ProjectLoader(SourceFileLoader):
    def __init__(self, fullname: str, path: str, project_builtins: dict[str, Any]) -> None:
        super().__init__(fullname, path)
        self._builtins = project_builtins

    def get_code(self, fullname: str) -> CodeType:
        """The code as the file has it now."""
        # Not from `__pycache__`, which goes by size and whole seconds: a reload would run what was there before.
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = self._builtins
        super().exec_module(module)
