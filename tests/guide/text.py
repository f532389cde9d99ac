"""The developer guide that started the project: its code, taken from its text and run as it is written."""

import re
from pathlib import Path

COPY = Path(__file__).with_name("developer-guide.txt")
SEED = Path(__file__).parents[3] / "shared" / "seed"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def block(heading: str, language: str) -> str:
    """The first code block of a language under the heading, as it is written."""
    section = COPY.read_text().split(f"\n{heading}\n", 1)[1]
    return next(found[2] for found in _BLOCK.finditer(section) if found[1] == language)


def imports() -> str:
    """The imports with which the guide's first program begins."""
    program = block("### 3. 实现 App 类", "python")
    return program.split("\n\n\n", 1)[0] + "\n"
