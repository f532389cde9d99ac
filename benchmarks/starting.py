"""What a start costs: imports, ``--help``, the first answer, and the memory that a server then holds."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.processes import SCRIPTS, Answer, Command, Workplace
from benchmarks.table import Row, take_turns

PROJECTS = Path(__file__).with_name("projects")
BARE = Path(__file__).with_name("bare.py")

_TURNS = 9
_NEEDED = "import aiohttp.web, pydantic_settings, yaml, dependency_injector.containers"
_FACADE = "from agentscope.runtime import runtime"
_DEFERRED = ("openai", "anthropic", "sqlalchemy", "mcp", "alembic", "asyncpg")


def measure_import(workplace: Workplace) -> Iterator[Row | str]:
    """The import of the facade, beside the import of what the kernel can't do without."""
    loaded = workplace.run(
        sys.executable, "-c", f"import sys; {_FACADE}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    ).split()
    yield Row(
        "import: agentscope.runtime", "s", *_against_imports(workplace, sys.executable, "-c", _FACADE), limit=1.15
    )
    early = [name for name in _DEFERRED if name in loaded]
    yield f"        imported with it: {', '.join(early) or 'none'} of {', '.join(_DEFERRED)}"


def measure_help(workplace: Workplace) -> Iterator[Row | str]:
    """``agentscope --help``, which needs none of the kernel."""
    yield Row(
        "help: agentscope --help", "s", *_against_imports(workplace, SCRIPTS / "agentscope", "--help"), limit=0.4
    )


def measure_start(workplace: Workplace) -> Iterator[Row | str]:
    """From the start of the process to the end of its first answer, and its memory then."""
    project = workplace.folder / "quickstart"
    shutil.copytree(PROJECTS / "quickstart", project)

    def ours() -> Answer:
        return workplace.first_answer(kernel(project), "hello")

    def ours_anew() -> Answer:
        shutil.rmtree(project / ".agentscope")
        return ours()

    def reference() -> Answer:
        return workplace.first_answer(bare, "hello")

    for program in (ours, reference):
        program()
    answers, bare_answers = take_turns(ours, reference, _TURNS)
    yield Row("start: to the first answer", "s", _seconds(answers), _seconds(bare_answers), limit=3.0)
    yield Row(
        "memory: resident after the first answer",
        "MiB",
        [answer.resident for answer in answers],
        [answer.resident for answer in bare_answers],
        limit=2.2,
    )
    ours_anew()
    answers, bare_answers = take_turns(ours_anew, reference, _TURNS // 2)
    yield Row("start: the very first, which makes the database", "s", _seconds(answers), _seconds(bare_answers))


def kernel(project: Path) -> Command:
    """The command line that serves a project."""
    return lambda port: (SCRIPTS / "agentscope", "run", project, "--port", str(port))


def bare(port: int) -> tuple[str | Path, ...]:
    """The command line of the reference."""
    return sys.executable, BARE, str(port)


def _against_imports(workplace: Workplace, *command: str | Path) -> tuple[list[float], list[float]]:
    reference = (sys.executable, "-c", _NEEDED)
    for program in (command, reference):
        workplace.run(*program)
    return take_turns(lambda: workplace.seconds(*command), lambda: workplace.seconds(*reference), _TURNS)


def _seconds(answers: list[Answer]) -> list[float]:
    return [answer.seconds for answer in answers]
