"""Reading a project's configuration: every source in its turn, all problems at once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from agentscope.errors import ProjectError
from agentscope.runtime.settings._conform import conform
from agentscope.runtime.settings._document import read_document
from agentscope.runtime.settings._explain import explain
from agentscope.runtime.settings._load import Flag
from agentscope.runtime.settings._loaded import LoadedSettings
from agentscope.runtime.settings._nodes import UNUSABLE, Node, descend, merge, plain
from agentscope.runtime.settings._overrides import from_assignments, from_flags, from_variables
from agentscope.runtime.settings._problems import Origin, Report, Source
from agentscope.runtime.settings._tree import Settings
from agentscope.runtime.settings._values import SecretFiles, fill_keys, interpolate, read_secrets
from agentscope.runtime.settings._variables import Variables, read_variables
from agentscope.runtime.settings._yaml import YamlError

_FILE_NAME: Final = "agentapp.yaml"
_LARGEST_FILE: Final = 1024 * 1024


def read_project(
    project: Path,
    config: Path | None,
    assignments: Sequence[str],
    flags: Mapping[str, Flag],
    environment: Mapping[str, str] | None,
    absent_secret: str | None,
    again: Callable[[], LoadedSettings],
) -> LoadedSettings:
    """What ``load_settings`` promises. ``again`` is for what is returned."""
    file = _find(project, config)
    report = Report()
    variables = read_variables(project, environment, report)
    root = _read_sources(file, config, variables, assignments, flags, report)
    interpolate(root, variables, report)
    read_secrets(root, Settings, SecretFiles(project, absent_secret, report))
    fill_keys(root, variables)
    try:
        settings = Settings.model_validate(plain(root))
    except ValidationError as error:
        explain(error, root, report)
        report.raise_if_any()
        raise
    report.raise_if_any()
    return LoadedSettings(settings, project.resolve(), file, root, again)


def read_model_slots(
    project: Path, config: Path | None, assignments: Sequence[str], environment: Mapping[str, str] | None
) -> tuple[str, ...]:
    """What ``load_model_slots`` promises."""
    file = _find(project, config)
    report = Report()
    variables = read_variables(project, environment, report)
    root = _read_sources(file, config, variables, assignments, {}, report)
    report.raise_if_any()
    *_, models = descend(root, ["models"])
    return tuple(models.value) if models is not root and isinstance(models.value, dict) else ()


def _read_sources(
    file: Path,
    config: Path | None,
    variables: Variables,
    assignments: Sequence[str],
    flags: Mapping[str, Flag],
    report: Report,
) -> Node:
    """All sources in one tree, as they are written: the keys are those of the settings, the values are unchecked."""
    root = _read_file(file, _FILE_NAME if config is None else str(config), report)
    conform(root, Settings, report)
    for source in _overrides(variables, root, assignments, flags, report):
        conform(source, Settings, report)
        root = merge(root, source, report)
    return root


def _overrides(
    variables: Variables, written: Node, assignments: Sequence[str], flags: Mapping[str, Flag], report: Report
) -> Iterator[Node]:
    """What is set outside the file, the lowest first."""
    yield from from_variables(variables.dotenv, written, report)
    yield from from_variables(variables.environment, written, report)
    yield from from_assignments(assignments, report)
    yield from from_flags(flags)


def _find(project: Path, config: Path | None) -> Path:
    """The file to read. Raises ``ProjectError`` when it or the project's folder isn't there."""
    if project.is_file():
        raise ProjectError(f"{project} is a file: name the project's folder (see --help)")
    if not project.is_dir():
        raise ProjectError(f"no folder {project}: create it, or name the project's folder (see --help)")
    if config is not None:
        if not config.is_file():
            raise ProjectError(f"no file {config}: give --config the path of a YAML file")
        return config
    file = project / _FILE_NAME
    if not file.is_file():
        # `.` says nothing to whoever is in another folder than they think.
        folder = project if project.name else project.resolve()
        raise ProjectError(f"no {_FILE_NAME} in {folder}: create one, or name the project's folder (see --help)")
    return file


def _read_file(file: Path, name: str, report: Report) -> Node:
    """The tree in ``file``, whose problems are reported as being in ``name``."""

    def at(line: int, column: int) -> Origin:
        return Origin(Source.FILE, name, line, column)

    whole = at(0, 0)
    try:
        with file.open("rb") as stream:
            content = stream.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise ProjectError(f"{file} can't be read: {(error.strerror or '').lower()}") from error
    if len(content) > _LARGEST_FILE:
        report.add(whole, "", f"larger than {_LARGEST_FILE} bytes; make it smaller")
        return Node(UNUSABLE, whole, whole, "")
    try:
        text = content.decode("utf-8-sig")
        return read_document(text, lambda mark: at(mark.line + 1, mark.column + 1), whole, report)
    except UnicodeDecodeError as error:
        before = content[: error.start]
        place = at(before.count(b"\n") + 1, len(before.rpartition(b"\n")[2].decode("utf-8", "replace")) + 1)
        report.add(place, "", "is not UTF-8 text; save the file as UTF-8")
    except YamlError as error:
        report.add(at(error.line, error.column), "", error.message)
    return Node(UNUSABLE, whole, whole, "")
