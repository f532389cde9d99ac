"""Whatever is written into the files: the settings load, or the user is told why not. Nothing else is ever raised."""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from agentscope.errors import UserError
from agentscope.runtime.settings import ConfigurationError, Settings, describe, load_settings

KEYS = [
    "models mcp_servers session server platform tracing app main provider model api_key base_url stream script file",
    "generate_kwargs client_kwargs transport url headers env args port host auth tokens jwt key ttl cors_origins",
    "sevrer modles provder prot api_ky << a.b 1 true null ${X}",
]
WORDS = ["openai", "offline", "${X}", "${Y}", "${X:-y}", "$${X}", "${", "stdio", "see", "http://x", "*a", "!b", "1:30"]

keys = st.sampled_from(" ".join(KEYS).split()) | st.text(max_size=8)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.dates()
    | st.sampled_from(WORDS)
)


def collections(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5)


trees = st.recursive(scalars, collections, max_leaves=25)
syntax = st.lists(
    st.sampled_from([*"{}[]:,-?&*!|>'\"%@`#\t \n", ": ", "- ", "\n  ", "&a ", "*a", "<<: ", "---\n", "!!int ", "${X}"])
    | keys,
    max_size=40,
).map("".join)


def load(content: bytes, dotenv: bytes, assignments: list[str], environment: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        (project / "agentapp.yaml").write_bytes(content)
        (project / ".env").write_bytes(dotenv)
        try:
            loaded = load_settings(project, assignments=assignments, environment=environment)
        except UserError as error:
            refused = error
        else:
            assert repr(loaded)
            assert describe(loaded)
            return
    text = str(refused)
    assert text.encode()
    if isinstance(refused, ConfigurationError):
        assert len(text.splitlines()) == len(refused.problems)


@settings(deadline=None)
@given(st.text() | syntax, st.text(max_size=20))
def test_any_text_loads_or_is_a_users_mistake(text: str, dotenv: str) -> None:
    load(text.encode("utf-8", "surrogatepass"), dotenv.encode("utf-8", "surrogatepass"), [], {"X": "x"})


@settings(deadline=None)
@given(st.binary(), st.binary())
def test_any_bytes_load_or_are_a_users_mistake(content: bytes, dotenv: bytes) -> None:
    load(content, dotenv, [], {})


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(list(Settings.model_fields)), trees) | trees)
def test_any_tree_loads_or_is_a_users_mistake(tree: object) -> None:
    content = yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")
    load(content, b"Y=y\n", [], {"X": "x", "OPENAI_API_KEY": "k"})


def joined(separator: str) -> Callable[[Iterable[str]], str]:
    return separator.join


paths = st.lists(keys, min_size=1, max_size=5)
values = st.text(max_size=12) | trees.map(yaml.safe_dump) | st.sampled_from(["[", "{}", '{"port": 1}', '["a"]'])


@settings(deadline=None)
@given(
    st.lists(st.tuples(paths.map(joined(".")), values).map(joined("=")) | st.text(), max_size=3),
    st.dictionaries(paths.map(joined("__")).map("AGENTSCOPE_{}".format), values, max_size=3),
)
def test_any_assignment_and_variable_loads_or_is_a_users_mistake(
    assignments: list[str], environment: dict[str, str]
) -> None:
    load(b"models: {main: {provider: offline}}\n", b"", assignments, environment)


@pytest.mark.parametrize("length", [1_000, 1_000_000])
def test_a_long_line_takes_no_time(length: int) -> None:
    load(b"a" * length, b"A" * length, ["a" * length, "a=" + "a" * length], {"AGENTSCOPE_A__B": "a" * length})
