"""The modules of a project that runs, for tests that change something in them."""

import importlib
from types import ModuleType

from agentscope.runtime import Runtime
from agentscope.runtime._imports import PROJECT_PACKAGE


def project_module(runtime: Runtime, name: str) -> ModuleType:
    """The module of that name as the app of a started runtime has it, for ``monkeypatch.setattr`` and ``isinstance``.

    What ``import name`` gives a test is another one: each runtime of a project loads its modules afresh. Raises
    ``ModuleNotFoundError`` when the project has no such module, and ``RuntimeNotReadyError`` before the start.
    """
    package = type(runtime.app).__module__.partition(".")[0]
    # An app class that the test gave has the modules that everybody has.
    return importlib.import_module(f"{package}.{name}" if package.startswith(PROJECT_PACKAGE) else name)
