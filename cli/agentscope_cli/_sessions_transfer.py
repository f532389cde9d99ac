"""``agentscope sessions export`` and ``import``."""

import os
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path

import click

from agentscope.errors import UserError
from agentscope.session import OnExisting, SessionRepository, Tally, export_sessions, import_sessions
from agentscope_cli._sessions_output import Output, counted, progress, read_chunks
from agentscope_cli._sessions_store import ProjectStore


def export_to(store: ProjectStore, file: Path, session_ids: Sequence[str]) -> None:
    """Write the sessions, or all of them when none is named, to a file or to standard output (``-``)."""
    tally = Tally()
    with opened_for_writing(file) as output:
        store.run(lambda repository: _export(repository, output, session_ids, tally))
    if _is_standard(file):
        return
    click.echo(f"exported {counted(tally.sessions, 'session')} to {file}", err=True)


def import_from(store: ProjectStore, file: Path, on_existing: OnExisting) -> None:
    """Store the sessions of an export, from a file or from standard input (``-``)."""
    tally = Tally()
    with opened_for_reading(file) as descriptor:
        try:
            store.run(lambda repository: _import(repository, descriptor, str(file), on_existing, tally), creates=True)
        finally:
            # Also after an error: what came before it is stored.
            skipped = f" ({tally.skipped:,} skipped)" if tally.skipped else ""
            click.echo(f"imported {counted(tally.sessions, 'session')}{skipped}")


async def _export(repository: SessionRepository, output: Output, session_ids: Sequence[str], tally: Tally) -> None:
    async with repository.snapshot() as reader:
        total = len(set(session_ids)) or await reader.count_sessions()
        with progress(
            lambda: f"{tally.sessions:,} of {counted(total, 'session')}, {counted(tally.items, 'item')}",
            lambda: tally.sessions / total if total else 1.0,
            hidden=output.is_terminal,
        ):
            async with aclosing(export_sessions(reader, session_ids or None, tally=tally)) as lines:
                async for line in lines:
                    await output.write(line)
            await output.flush()


async def _import(
    repository: SessionRepository, descriptor: int, name: str, on_existing: OnExisting, tally: Tally
) -> None:
    with progress(lambda: f"{counted(tally.sessions, 'session')}, {counted(tally.items, 'item')}"):
        async with aclosing(read_chunks(descriptor, name)) as chunks:
            await import_sessions(repository, chunks, on_existing=on_existing, tally=tally)


@contextmanager
def opened_for_writing(file: Path) -> Generator[Output]:
    """A file has a name of its own until it is whole. A pipe or a device is written to as it is."""
    if _is_standard(file):
        yield Output.standard()
    elif file.exists() and not file.is_file():
        with _explaining(file):
            descriptor = os.open(file, os.O_WRONLY)
        yield Output(descriptor, str(file))
        os.close(descriptor)
    else:
        with _replaced(file) as output:
            yield output


@contextmanager
def _replaced(file: Path) -> Generator[Output]:
    # Only its owner may read it, for it holds conversations.
    with _explaining(file):
        target = file.resolve()
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".partial")
    partial = Path(name)
    try:
        # It stays open on an error, for a thread may still be writing to it.
        yield Output(descriptor, str(file))
        with _explaining(file):
            os.fsync(descriptor)
            os.close(descriptor)
            partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def opened_for_reading(file: Path) -> Generator[int]:
    """The descriptor of a file, a pipe or standard input."""
    if _is_standard(file):
        if sys.stdin.isatty():
            click.echo("reading an export from this terminal; Ctrl-D ends it, Ctrl-C stops", err=True)
        yield sys.stdin.fileno()
        return
    with _explaining(file):
        descriptor = os.open(file, os.O_RDONLY)
    # It is not closed on an error, for a thread may still be reading from it.
    yield descriptor
    os.close(descriptor)


@contextmanager
def _explaining(file: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from error


def _is_standard(file: Path) -> bool:
    return str(file) == "-"
