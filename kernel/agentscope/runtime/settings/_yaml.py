"""Reading one YAML document into nodes, safe from documents that nest or expand without end."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import yaml
from yaml.composer import Composer
from yaml.error import Mark, MarkedYAMLError

from agentscope.runtime.settings._nodes import MAX_DEPTH
from agentscope.runtime.settings._problems import Origin

if TYPE_CHECKING or not yaml.__with_libyaml__:
    from yaml import SafeLoader as _Base
else:

    class _Base(Composer, yaml.CSafeLoader):
        """PyYAML's composer over libyaml's parser, ten times as fast as PyYAML's own.

        libyaml's composer has no limit on the depth, and overruns the stack.
        """

        def __init__(self, text: str) -> None:
            Composer.__init__(self)
            yaml.CSafeLoader.__init__(self, text)


# Gives the origin of a mark: a position in a file, or the same place for all of an assignment's text.
Locate = Callable[[Mark], Origin]

# libyaml's and PyYAML's words, of which some quote the text, and ours. The first whose words are found is taken.
_EXPLANATIONS: Final = (
    ("mapping values are not allowed", "a ':' can't stand here; put the text in quotes, or check the indentation"),
    ("could not find expected ':'", "this key needs a ':' after it; or check the indentation"),
    ("tab character", "tabs can't indent; use spaces"),
    ("cannot start any token", "a text can't begin with this character; put it in quotes"),
    ("unexpected end of stream", "this quote is never closed"),
    ("document separator", "this quote is never closed"),
    ("expected ',' or", "this bracket is never closed, or a ',' is missing"),
    ("expected key", "the indentation does not fit the lines above"),
    ("expected <block end>", "the indentation does not fit the lines above"),
    ("expected '-' indicator", "the indentation does not fit the lines above, or a '-' is missing"),
    ("expected node content", "a value is missing here, or a bracket is never closed"),
    ("undefined alias", "the anchor of this alias isn't defined above; a text that begins with * needs quotes"),
    ("second occurrence", "this anchor is defined twice; give it another name"),
    ("undefined tag handle", "a text that begins with ! needs quotes"),
    ("another document", "only one document may be in the file; remove this and what follows"),
    ("unknown escape character", "a backslash in double quotes starts an escape; use single quotes"),
    ("escape", "this escape can't be read; use single quotes around the text"),
)


class YamlError(Exception):
    """Text that isn't YAML. ``message`` never quotes it."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


class _Loader(_Base):
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            mark = parent.start_mark if parent is not None else None
            line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
            raise YamlError(f"nested more than {MAX_DEPTH} levels deep", line, column)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def compose(text: str) -> yaml.Node | None:
    """The document in ``text``, None when there is none. Raises ``YamlError``.

    An alias is the very node of its anchor, and may lead back to where it stands.
    """
    forbidden = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if forbidden is not None:
        line, column = _position(text, forbidden.start())
        raise YamlError("a character that YAML does not allow; remove it", line, column)
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    except MarkedYAMLError as error:
        raise _explained(error, text) from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise YamlError("not valid YAML", 1, 1) from None


def _explained(error: MarkedYAMLError, text: str) -> YamlError:
    words = " ".join(part for part in (error.context, error.problem) if part)
    message = next((ours for theirs, ours in _EXPLANATIONS if theirs in words), "not valid YAML")
    # What is never closed is noticed at the end of the text, and is to be mended where it begins.
    marks = [mark for mark in (error.problem_mark, error.context_mark) if mark is not None]
    mark = next((mark for mark in marks if mark.index < len(text.rstrip())), None)
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else _position(text, len(text))
    if mark is not None and text[mark.index : mark.index + 1] == "\t":
        message = "tabs can't indent; use spaces"
    return YamlError(message, line, column)


def _position(text: str, index: int) -> tuple[int, int]:
    before = text[:index]
    return before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1
