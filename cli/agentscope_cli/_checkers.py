"""Where type checkers look for a project's stubs, by what is configured beside it."""

import configparser
import os
import re
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast

_DEFAULT: Final = "typings"
_MYPY_FOLDER: Final = "$MYPY_CONFIG_FILE_DIR/"


def stub_folder(project: Path) -> Path:
    """The folder for stubs: where the project's own pyproject.toml has pyright look, else where it does by itself."""
    configured = _stub_path(_tool(project / "pyproject.toml"))
    return project / (configured or _DEFAULT)


def missing_configuration(project: Path, stubs: Path) -> list[str]:
    """What to configure so that the type checkers find the folder of stubs: a line for each that doesn't."""
    root = _root(project)
    where = Path(os.path.relpath(stubs, root)).as_posix()
    return [line for line in (_missing_for_pyright(root, where), _missing_for_mypy(root, where)) if line]


def _missing_for_pyright(root: Path, where: str) -> str | None:
    file = root / "pyproject.toml"
    # A pyrightconfig.json counts instead, and its comments are more than JSON.
    if (_stub_path(_tool(file)) or _DEFAULT) == where or (root / "pyrightconfig.json").is_file():
        return None
    return f'for pyright, put into {_shown(file)}, below [tool.pyright]: stubPath = "{where}"'


def _missing_for_mypy(root: Path, where: str) -> str | None:
    path = f"{_MYPY_FOLDER}{where}"
    for name in ("mypy.ini", ".mypy.ini"):
        if (root / name).is_file():
            paths, file, section, value = _ini_path(root / name), root / name, "mypy", path
            break
    else:
        file, section, value = root / "pyproject.toml", "tool.mypy", f'"{path}"'
        tool = _tool(file)
        paths = _table(tool, "mypy").get("mypy_path")
        if "mypy" not in tool and _ini(root / "setup.cfg").has_section("mypy"):
            paths, file, section, value = _ini_path(root / "setup.cfg"), root / "setup.cfg", "mypy", path
        elif "mypy" not in tool and ("pyright" in tool or "basedpyright" in tool):
            return None
    if where in _folders(paths):
        return None
    if paths:
        return f"for mypy, add to mypy_path in {_shown(file)}, below [{section}]: {value}"
    return f"for mypy, put into {_shown(file)}, below [{section}]: mypy_path = {value}"


def _shown(file: Path) -> str:
    return os.path.relpath(file)


def _root(project: Path) -> Path:
    """The folder of the pyproject.toml that the checkers find: the nearest, in the same repository."""
    for folder in (project, *project.parents):
        if (folder / "pyproject.toml").is_file():
            return folder
        if (folder / ".git").exists():
            break
    return project


def _tool(file: Path) -> dict[str, Any]:
    try:
        return _table(tomllib.loads(file.read_text(encoding="utf-8")), "tool")
    except (OSError, ValueError):
        # One that can't be read configures nothing; the checkers say what is wrong with it.
        return {}


def _table(table: dict[str, Any], name: str) -> dict[str, Any]:
    value = table.get(name)
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _stub_path(tool: dict[str, Any]) -> str | None:
    configured = _table(tool, "basedpyright" if "basedpyright" in tool else "pyright").get("stubPath")
    return Path(configured).as_posix() if isinstance(configured, str) else None


def _ini_path(file: Path) -> str | None:
    return _ini(file).get("mypy", "mypy_path", fallback=None)


def _ini(file: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    with suppress(configparser.Error, UnicodeDecodeError):
        parser.read(file, encoding="utf-8")
    return parser


def _folders(paths: object) -> list[str]:
    texts = re.split(r"[:,\n]", paths) if isinstance(paths, str) else paths
    listed = cast("list[object]", texts) if isinstance(texts, list) else []
    found = [str(text).strip().removeprefix(_MYPY_FOLDER) for text in listed]
    return [Path(path).as_posix() for path in found if path]
