"""``agentscope sessions``: the stored sessions of a project."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, Literal, ParamSpec

import click

if TYPE_CHECKING:
    from agentscope_cli._sessions_store import ProjectStore

_Options = ParamSpec("_Options")


@click.group()
def sessions() -> None:
    """List, show, export, import and delete the stored sessions of a project."""


def _of_project(command: Callable[Concatenate[ProjectStore, _Options], None]) -> Callable[..., None]:
    """Give a command the options that say which project is meant, and its store."""

    @wraps(command)
    def run(
        project: Path,
        config: Path | None,
        assignments: tuple[str, ...],
        *arguments: _Options.args,
        **options: _Options.kwargs,
    ) -> None:
        from agentscope_cli._sessions_store import find_store

        command(find_store(project, config, assignments), *arguments, **options)

    with_options: Callable[..., None] = run
    for parameter in (
        click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="A setting; may be repeated."),
        click.option(
            "--config", type=click.Path(path_type=Path), metavar="FILE", help="Another file than agentapp.yaml."
        ),
        click.option(
            "--project",
            type=click.Path(path_type=Path),
            default=".",
            metavar="PATH",
            help="The project's folder (default: this one).",
        ),
    ):
        with_options = parameter(with_options)
    return with_options


_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@sessions.command("list")
@click.option("--limit", type=click.IntRange(1), help="How many to list (default: 50 on a terminal, else all).")
@click.option("--after", metavar="ID", help="List those that come after this session.")
@click.option("--wide", is_flag=True, help="Show exact times.")
@_as_json
@_of_project
def list_command(store: ProjectStore, limit: int | None, after: str | None, wide: bool, as_json: bool) -> None:
    """List the sessions, in the order of their ids."""
    from agentscope_cli._sessions_list import Listing, list_sessions
    from agentscope_cli._sessions_store import NoDatabaseError

    try:
        store.run(lambda repository: list_sessions(repository, Listing(limit, after, wide, as_json)))
    except NoDatabaseError as error:
        # No failure: a project that nobody has used yet has no sessions.
        click.echo(str(error), err=True)


@sessions.command()
@click.argument("session_id")
@_as_json
@_of_project
def show(store: ProjectStore, session_id: str, as_json: bool) -> None:
    """Show a session: its modules and the end of its conversation, or with --json its whole state."""
    from agentscope_cli._sessions_show import print_session, print_session_as_json

    print_it = print_session_as_json if as_json else print_session
    store.run(lambda repository: print_it(repository, session_id))


@sessions.command("export")
@click.argument("session_ids", nargs=-1, metavar="[SESSION_ID]...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, allow_dash=True),
    default="-",
    metavar="FILE",
    help="Where to write (default: standard output). The file is there when it is whole.",
)
@_of_project
def export_command(store: ProjectStore, session_ids: tuple[str, ...], output: Path) -> None:
    """Write sessions as lines of JSON, all of one moment; without ids, all sessions."""
    from agentscope_cli._sessions_transfer import export_to

    export_to(store, output, session_ids)


@sessions.command("import")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True), default="-", metavar="[FILE]")
@click.option(
    "--on-existing",
    type=click.Choice(["fail", "skip", "replace"]),
    default="fail",
    show_default=True,
    help="What to do with a session that exists already.",
)
@_of_project
def import_command(store: ProjectStore, file: Path, on_existing: Literal["fail", "skip", "replace"]) -> None:
    """Store the sessions of an export (default: from standard input). Each lands whole or not at all."""
    from agentscope_cli._sessions_transfer import import_from

    import_from(store, file, on_existing)


@sessions.command()
@click.argument("session_ids", nargs=-1, required=True, metavar="SESSION_ID...")
@_as_json
@_of_project
def delete(store: ProjectStore, session_ids: tuple[str, ...], as_json: bool) -> None:
    """Delete sessions. One that a server is using is waited for, up to 10 seconds."""
    from agentscope_cli._sessions_remove import delete_sessions

    store.run(lambda repository: delete_sessions(repository, session_ids, as_json=as_json))


@sessions.command()
@click.option("--older-than", metavar="AGE", help="Such as 12h or 30d; s, m, h, d or w (default: session.ttl).")
@click.option("--dry-run", is_flag=True, help="Only say how many there are.")
@_as_json
@_of_project
def prune(store: ProjectStore, older_than: str | None, dry_run: bool, as_json: bool) -> None:
    """Delete the sessions that were last saved longer ago than AGE. Those in use stay."""
    from agentscope_cli._sessions_remove import cut_off, prune_sessions, tell_pruned
    from agentscope_cli._sessions_store import NoDatabaseError

    before = cut_off(older_than, store.settings.ttl)
    try:
        store.run(lambda repository: prune_sessions(repository, before, dry_run=dry_run, as_json=as_json))
    except NoDatabaseError as error:
        click.echo(str(error), err=True)
        tell_pruned(0, before, dry_run=dry_run, as_json=as_json)
