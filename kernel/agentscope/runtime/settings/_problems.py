"""What is wrong with a configuration: each problem with its place, all of them raised together."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from enum import IntEnum

from agentscope.errors import UserError

_LONGEST_CELL = 100


class Source(IntEnum):
    """Where values come from, in the order in which problems are listed. A later one overrides an earlier one."""

    FILE = 0
    DOTENV = 1
    ENVIRONMENT = 2
    ASSIGNMENT = 3
    FLAG = 4


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """One place: a source, its name as the user knows it, and the line and column from 1, or 0 where there is none."""

    source: Source
    name: str
    line: int = 0
    column: int = 0

    @property
    def text(self) -> str:
        position = [str(number) for number in (self.line, self.column) if number]
        return ":".join([self.name, *position])


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake.

    ``where`` is the place (``agentapp.yaml:4:14``, ``environment AGENTSCOPE_SERVER__PORT``), ``key`` the dotted path
    as the user spelled it (empty when no key is concerned), ``message`` what is wrong and what to do. No part holds a
    value that may be secret.
    """

    where: str
    key: str
    message: str


class ConfigurationError(UserError):
    """A configuration that can't be used. Its text is one line for each of ``problems``, in aligned columns."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        rows = [(one_line(problem.where), one_line(problem.key), problem.message) for problem in self.problems]
        where_width, key_width = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
        gap = "  " if key_width else ""
        return "\n".join(
            f"{where:<{where_width}}  {key:<{key_width}}{gap}{one_line(message, longest=None)}"
            for where, key, message in rows
        )


class Report:
    """Collects the problems of one load."""

    def __init__(self) -> None:
        # A dict, for it keeps the order and drops what an alias makes us find twice.
        self._found: dict[tuple[Origin, Problem], None] = {}

    def add(self, origin: Origin, key: str, message: str) -> None:
        self._found[origin, Problem(origin.text, key, message)] = None

    def raise_if_any(self) -> None:
        """Raise ``ConfigurationError`` with what was found, sorted by place, if anything was."""
        if self._found:
            # The name is no part of the order: variables and flags stay in the order in which they were read.
            ordered = sorted(self._found, key=lambda found: (found[0].source, found[0].line, found[0].column))
            raise ConfigurationError(problem for _, problem in ordered)


def one_line(text: str, *, longest: int | None = _LONGEST_CELL) -> str:
    """``text`` with line breaks and other control characters escaped, cut to ``longest`` characters."""
    printable = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
    return printable if longest is None or len(printable) <= longest else printable[: longest - 1] + "…"


def suggestion(word: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that ``word`` is likely a misspelling of."""
    return next(iter(get_close_matches(word.lower(), list(known), n=1)), None)


def unknown_key(guess: str | None, known: Iterable[str]) -> str:
    """The message for a key that does not exist where ``known`` ones do."""
    if guess is not None:
        return f"unknown key; did you mean {guess}?"
    return f"unknown key; the keys here are {', '.join(known)}"
