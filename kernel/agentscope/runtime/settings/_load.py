"""The entry to loading. What reads YAML and ``.env`` is imported when it is first needed."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from agentscope.runtime.settings._loaded import LoadedSettings


class Flag(NamedTuple):
    """A command-line flag that sets a key: ``name`` is what users type (``--port``), ``value`` None when not given."""

    name: str
    value: object


def load_settings(
    project: Path,
    *,
    config: Path | None = None,
    assignments: Sequence[str] = (),
    flags: Mapping[str, Flag] | None = None,
    environment: Mapping[str, str] | None = None,
    absent_secret: str | None = None,
) -> LoadedSettings:
    """The settings of the project in the folder ``project``.

    The highest first: ``flags`` (dotted key to flag), ``assignments`` (``server.port=9000``, the value in YAML), the
    environment (``AGENTSCOPE_SERVER__PORT``), the project's ``.env``, ``agentapp.yaml`` (or ``config``, relative to
    the working directory), the defaults. Mappings are merged, lists replaced. ``environment`` None means that of the
    process. ``absent_secret`` stands for a secret whose file isn't there, None meaning that this is a problem.

    Raises ``ProjectError`` when the folder or the file isn't there, ``ConfigurationError`` with every problem found.
    """
    # YAML and the reading of it cost more than the rest of this package, and `agentscope --help` needs neither.
    from agentscope.runtime.settings._read import read_project

    # Not resolved: a link may lead to another version by then.
    again = partial(
        load_settings,
        project.absolute(),
        config=None if config is None else config.absolute(),
        assignments=assignments,
        flags=flags,
        environment=environment,
        absent_secret=absent_secret,
    )
    return read_project(project, config, assignments, flags or {}, environment, absent_secret, again)


def load_model_slots(
    project: Path,
    *,
    config: Path | None = None,
    assignments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """The names of the project's model slots, in the order of the file, from the sources of ``load_settings``.

    No value is looked at: neither a ``${VAR}`` that is not set nor a secret's file that isn't there is in the way.

    Raises ``ProjectError`` when the folder or the file isn't there, ``ConfigurationError`` for what can't be read and
    for unknown keys.
    """
    from agentscope.runtime.settings._read import read_model_slots

    return read_model_slots(project, config, assignments, environment)
