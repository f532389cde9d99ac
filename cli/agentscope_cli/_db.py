"""``agentscope db``: the schema of the session database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from agentscope.runtime.settings import SessionSettings

_Command = TypeVar("_Command", bound=Callable[..., None])


@click.group()
def db() -> None:
    """Look at the session database's schema, and bring it up to date, or back."""


def _project(command: _Command) -> _Command:
    """The argument and the options that say which project's database is meant."""
    for parameter in (
        click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="A setting; may be repeated."),
        click.option(
            "--config", type=click.Path(path_type=Path), metavar="FILE", help="Another file than agentapp.yaml."
        ),
        click.argument("project", default=".", type=click.Path(path_type=Path), metavar="[PATH]"),
    ):
        command = parameter(command)
    return command


@db.command()
@_project
def upgrade(project: Path, config: Path | None, assignments: tuple[str, ...]) -> None:
    """Bring the schema up to date. Safe to run from several places at once.

    Servers of an older version that still run fail their turns from then on, until they are replaced.
    """
    import asyncio

    from agentscope_adapters.storage.migrations import upgrade_schema

    before = asyncio.run(upgrade_schema(*_settings(project, config, assignments)))
    if before.is_current:
        click.echo(f"{before.database}: already at {before.needed}")
    else:
        click.echo(f"{before.database}: schema {before.found or 'none'} -> {before.needed}")


@db.command()
@_project
def current(project: Path, config: Path | None, assignments: tuple[str, ...]) -> None:
    """Print the schema's revision, or "none"."""
    import asyncio

    from agentscope_adapters.storage.migrations import read_schema

    click.echo(asyncio.run(read_schema(*_settings(project, config, assignments))).found or "none")


@db.command()
@_project
def check(project: Path, config: Path | None, assignments: tuple[str, ...]) -> None:
    """Exit with 0 when the schema is current, 1 when it needs an upgrade, 2 when it can't be used."""
    import asyncio

    from agentscope_adapters.storage.migrations import read_schema

    state = asyncio.run(read_schema(*_settings(project, config, assignments)))
    if state.is_unknown:
        raise state.error()
    if not state.is_current:
        click.echo(str(state.error()), err=True)
        raise click.exceptions.Exit(1)
    click.echo(f"{state.database}: at {state.needed}, as needed")


@db.command()
@click.argument("revision")
@_project
def downgrade(revision: str, project: Path, config: Path | None, assignments: tuple[str, ...]) -> None:
    """Take the schema back to REVISION, for an older version of agentscope. Stop the servers first.

    The sessions stay. The older version is installed after this, not before: it does not know the newer schema.
    """
    import asyncio

    from agentscope_adapters.storage.migrations import downgrade_schema

    before = asyncio.run(downgrade_schema(*_settings(project, config, assignments), revision))
    if before.found == revision:
        click.echo(f"{before.database}: already at {revision}")
    else:
        click.echo(f"{before.database}: schema {before.found} -> {revision}")


def _settings(project: Path, config: Path | None, assignments: tuple[str, ...]) -> tuple[SessionSettings, Path]:
    from agentscope.errors import UserError
    from agentscope.runtime.settings import load_settings

    loaded = load_settings(project, config=config, assignments=assignments)
    session = loaded.settings.session
    if session.backend != "sql":
        raise UserError(f"session.backend: {session.backend} has no schema; `agentscope db` is for the backend sql")
    return session, loaded.project
