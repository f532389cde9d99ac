"""Loading the app class of a project, and saying in a line what is wrong with it when it can't be loaded."""

import sys
import traceback
from pathlib import Path
from threading import current_thread, main_thread
from types import TracebackType

from agentscope.errors import AgentScopeError, ProjectError
from agentscope.runtime._app import AgentApp, check_app_class
from agentscope.runtime._imports import PROJECT_PACKAGE, ProjectModules


def load_app_class(modules: ProjectModules, app: str) -> type[AgentApp]:
    """The class that ``app`` names (``module:Class``) in the project.

    Raises ``ProjectError`` when there is none, it can't serve, or its module can't be imported.
    """
    module_name, _, class_name = app.partition(":")
    path = modules.folder.joinpath(*module_name.split("."))
    if not path.with_suffix(".py").is_file() and not (path / "__init__.py").is_file():
        shown = f"{module_name.replace('.', '/')}.py"
        raise ProjectError(f"no {shown} in {modules.folder}: create it with a class {class_name}, or set `app`")
    shown = f"{module_name}.py" if path.with_suffix(".py").is_file() else f"{module_name}/__init__.py"
    try:
        module = modules.load(module_name)
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt) and current_thread() is main_thread():
            # The user's. Of another thread it is the app's own.
            raise
        raise explained(error, modules.folder, shown) from error
    cls = vars(module).get(class_name)
    if not isinstance(cls, type):
        classes = [name for name, value in vars(module).items() if _is_app_class(value)]
        hint = f"; set `app: {module_name}:{classes[0]}` in agentapp.yaml" if classes else ""
        raise ProjectError(f"{shown}: no class {class_name}{hint or ': write `class App(AgentApp):`'}")
    return check_app_class(cls, shown)


def explained(error: BaseException, folder: Path, where: str) -> ProjectError:
    """What to raise for what a project's code has raised; ``where`` names it when no line of it did."""
    message = explain(error, folder, where)
    # Of the rest the text is the app's, whatever the class: it may hold a secret.
    is_ours = isinstance(error, ModuleNotFoundError) or (
        isinstance(error, SyntaxError) and error.filename is not None and _inside(Path(error.filename), folder)
    )
    brief = message if is_ours else f"{_place(error, folder) or where}: {type(error).__name__}"
    return ProjectError(message, brief=brief)


def explain(error: BaseException, folder: Path, where: str) -> str:
    """One line that says what a project's code raised, at which of its lines, and what to do."""
    where = _place(error, folder) or where
    if isinstance(error, AgentScopeError):
        return f"{where}: {error}"
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        top = error.name.partition(".")[0]
        if top == "agentscope":
            # Installing what PyPI calls agentscope would break this environment.
            return f"{where}: this version of agentscope-kernel has no module {error.name!r}"
        if top.startswith(PROJECT_PACKAGE):
            name = error.name.partition(".")[2]
            return f"{where}: the project has no module {name!r}: there is no {name.replace('.', '/')}.py"
        if (folder / f"{top}.py").is_file():
            # `import` finds it; what is imported by name is everybody's.
            how = f"importlib.import_module('.{error.name}', __package__)"
            return f"{where}: no module {error.name!r} is installed; for {top}.py beside app.py, write {how}"
        requirements = "pip install -r requirements.txt" if (folder / "requirements.txt").is_file() else ""
        command = requirements or f"pip install {top}"
        return (
            f"{where}: no module {error.name!r}, neither in the project nor installed; if it is a package's, run: "
            f"{command}"
        )
    if isinstance(error, SystemExit):
        return f"{where}: sys.exit({error.code!r}) was called: raise an error that says what is wrong instead"
    # The text of a syntax error ends with its place, which stands in front already.
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{where}: {type(error).__name__}: {text}"


def _place(error: BaseException, folder: Path) -> str | None:
    """File and line of the project where the error came from, the innermost one."""
    if isinstance(error, SyntaxError) and error.filename and _inside(Path(error.filename), folder):
        return f"{Path(error.filename).relative_to(folder)}:{error.lineno}"
    frames = [frame for frame in _frames(error.__traceback__) if _inside(Path(frame.filename), folder)]
    return f"{Path(frames[-1].filename).relative_to(folder)}:{frames[-1].lineno}" if frames else None


def _frames(trace: TracebackType | None) -> list[traceback.FrameSummary]:
    return list(traceback.extract_tb(trace))


def _inside(path: Path, folder: Path) -> bool:
    environment = Path(sys.prefix)
    return path.is_relative_to(folder) and not (
        environment.is_relative_to(folder) and path.is_relative_to(environment)
    )


def _is_app_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, AgentApp) and value is not AgentApp
