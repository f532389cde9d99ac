"""``agentscope sessions delete`` and ``prune``."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import click
import orjson

from agentscope.errors import SessionBusyError, UserError
from agentscope.session import PATIENCE, SessionReader, SessionRepository, hold_session, utc_text
from agentscope_cli._sessions_output import counted, exact_text, progress

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_BATCH = 100
_PAGE = 1000
_NOT_ALL = 2
"""The exit status when some of the sessions are still there, or never were."""


async def delete_sessions(
    repository: SessionRepository, session_ids: Sequence[str], *, as_json: bool, patience: float = PATIENCE
) -> None:
    """Delete each session that is there and free within ``patience`` seconds; say what became of the others."""
    wanted = list(dict.fromkeys(session_ids))
    fates: dict[str, list[str]] = {"deleted": [], "not_found": [], "in_use": []}
    for session_id in wanted:
        try:
            fate = "deleted" if await _delete(repository, session_id, patience) else "not_found"
        except SessionBusyError as error:
            click.echo(str(error), err=True)
            fate = "in_use"
        if fate == "not_found":
            click.echo(f"session {session_id!r} does not exist", err=True)
        fates[fate].append(session_id)
    if as_json:
        click.echo(orjson.dumps(fates))
    else:
        click.echo(f"deleted {counted(len(fates['deleted']), 'session')}")
    if len(fates["deleted"]) < len(wanted):
        raise click.exceptions.Exit(_NOT_ALL)


def cut_off(older_than: str | None, ttl: float | None) -> datetime:
    """The time before which a session must have been saved to be pruned. ``ttl`` is that of the settings, in seconds.

    Raises ``UserError`` when neither says how old that is.
    """
    if older_than is None and ttl is None:
        raise UserError("say how old a session must be: --older-than 30d, or session.ttl in the configuration")
    try:
        age = timedelta(seconds=ttl or 0) if older_than is None else _age(older_than)
        return datetime.now(UTC) - age
    except OverflowError as error:
        raise UserError(f"--older-than: {older_than or ttl} is longer ago than there are times") from error


async def prune_sessions(repository: SessionRepository, before: datetime, *, dry_run: bool, as_json: bool) -> None:
    """Delete the sessions that were last saved before that time, or count them."""
    done = 0
    with progress(lambda: counted(done, "session")):
        if dry_run:
            done = await _count(repository, before)
        else:
            while deleted := await repository.prune(before, limit=_BATCH):
                done += deleted
    tell_pruned(done, before, dry_run=dry_run, as_json=as_json)


def tell_pruned(done: int, before: datetime, *, dry_run: bool, as_json: bool) -> None:
    """Say how many sessions were deleted."""
    if as_json:
        click.echo(orjson.dumps({"sessions": done, "before": utc_text(before), "dry_run": dry_run}))
    else:
        said = "would delete" if dry_run else "deleted"
        click.echo(f"{said} {counted(done, 'session')} last saved before {exact_text(before)}")


async def _delete(repository: SessionRepository, session_id: str, patience: float) -> bool:
    if await repository.load(session_id, ()) is None:
        return False
    async with hold_session(repository, session_id, patience=patience) as lease:
        return await repository.delete(lease)


def _age(text: str) -> timedelta:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if match is None:
        raise UserError(f"--older-than: {text!r} is no age; write a number and one of s, m, h, d, w, like 30d")
    return timedelta(seconds=float(match[1]) * _SECONDS[match[2]])


async def _count(reader: SessionReader, before: datetime) -> int:
    count = 0
    page = await reader.list_sessions(limit=_PAGE)
    while page:
        count += sum(summary.updated_at < before for summary in page)
        page = await reader.list_sessions(page[-1].session_id, _PAGE)
    return count
