"""The variables of the process and of the project's ``.env``."""

import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dotenv.parser import parse_stream

from agentscope.runtime.settings._problems import Origin, Report, Source

_LINE_BREAK: Final = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Variable:
    """The value of a variable, and where it is set."""

    value: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Variables:
    """Those of the process, and those of ``.env``, which count where the process has none of that name."""

    environment: Mapping[str, Variable]
    dotenv: Mapping[str, Variable]

    def get(self, name: str) -> Variable | None:
        return self.environment.get(name) or self.dotenv.get(name)


def read_variables(project: Path, environment: Mapping[str, str] | None, report: Report) -> Variables:
    """The variables of ``environment``, None meaning the process's own, and of the ``.env`` in ``project``."""
    process = os.environ if environment is None else environment
    return Variables(
        {name: Variable(value, _in_environment(name)) for name, value in process.items()},
        _read_dotenv(project / ".env", report),
    )


def _in_environment(name: str) -> Origin:
    return Origin(Source.ENVIRONMENT, f"environment {name}")


def _read_dotenv(path: Path, report: Report) -> dict[str, Variable]:
    # A folder of this name is a virtual environment; a pipe is how some password managers hand the file over.
    if not (path.is_file() or path.is_fifo()):
        return {}
    whole = Origin(Source.DOTENV, path.name)
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        report.add(whole, "", f"can't be read: {error.strerror}")
        return {}
    except UnicodeDecodeError:
        report.add(whole, "", "is not UTF-8 text; save it as UTF-8")
        return {}
    variables: dict[str, Variable] = {}
    # The parser, for dotenv_values() only logs what it can't read, and replaces ${…} from the process's environment.
    for binding in parse_stream(io.StringIO(text, newline="")):
        # The parser gives the number of the first of the blank lines above.
        written = binding.original.string
        blank = written[: len(written) - len(written.lstrip())]
        origin = Origin(Source.DOTENV, path.name, binding.original.line + len(_LINE_BREAK.findall(blank)))
        if binding.error or (binding.key is not None and binding.value is None):
            report.add(origin, "", "can't be read; write NAME=value, and close every quote")
        elif binding.key is not None and binding.value is not None:
            variables[binding.key] = Variable(binding.value, origin)
    return variables
