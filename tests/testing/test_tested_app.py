"""The example with tests of its own: they pass, and what its README and the docs show of them is there."""

import re
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "tested_app"


def test_the_tests_of_the_example_pass(pytester: pytest.Pytester) -> None:
    pytester.copy_example(str(EXAMPLE))
    run = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:cov", "-W", "error")
    run.assert_outcomes(passed=7)


def test_the_recorded_test_that_is_shown_is_the_example_s() -> None:
    shown = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "testing.md").read_text(), re.MULTILINE | re.DOTALL)
    test = (EXAMPLE / "tests" / "test_recorded.py").read_text().split("\n\n", 1)[1]
    assert test in [text.removeprefix("# tests/test_recorded.py\n") for text in shown]
