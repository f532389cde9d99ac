"""``agentscope sessions list``."""

import shlex
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime

import click
import orjson

from agentscope.session import SessionReader, SessionSummary, utc_text
from agentscope_cli._sessions_output import Output, age_text, exact_text, printable, size_text

_PAGE = 500
_ON_A_TERMINAL = 50
_WIDEST_ID = 40


@dataclass(frozen=True, slots=True)
class Listing:
    """What to list, and how. ``limit`` None is a screenful on a terminal, else all."""

    limit: int | None
    after: str | None
    wide: bool
    as_json: bool

    @property
    def is_for_people(self) -> bool:
        """Whether somebody looks at it."""
        return sys.stdout.isatty() and not self.as_json

    @property
    def most(self) -> int | None:
        """How many sessions to list, None for all."""
        return self.limit or (_ON_A_TERMINAL if self.is_for_people else None)


def summary_json(summary: SessionSummary) -> dict[str, object]:
    """What programs get to know of a session."""
    return {
        "session_id": summary.session_id,
        "created_at": utc_text(summary.created_at),
        "updated_at": utc_text(summary.updated_at),
        "version": summary.revision.version,
        "size_bytes": summary.size_bytes,
        "owner": summary.owner,
    }


async def list_sessions(reader: SessionReader, listing: Listing) -> None:
    """Print the sessions, a page at a time."""
    out = Output.standard()
    last: str | None = None
    async with aclosing(_pages(reader, listing.after, listing.most)) as pages:
        async for page in pages:
            if listing.is_for_people:
                _print_table(page, show_header=last is None, wide=listing.wide)
            elif listing.as_json:
                await out.write(b"".join(orjson.dumps(summary_json(one)) + b"\n" for one in page))
            else:
                await out.write_lines(_plain(page))
            await out.flush()
            last = page[-1].session_id
    if listing.as_json:
        return
    if last is None:
        click.echo("no sessions" if listing.after is None else "no more sessions", err=True)
    elif listing.is_for_people and await reader.list_sessions(last, 1):
        click.echo(f"there are more: --after {shlex.quote(printable(last))}", err=True)


async def _pages(
    reader: SessionReader, after: str | None, most: int | None
) -> AsyncGenerator[Sequence[SessionSummary]]:
    while most is None or most > 0:
        page = await reader.list_sessions(after, _PAGE if most is None else min(_PAGE, most))
        if not page:
            return
        yield page
        after = page[-1].session_id
        if most is not None:
            most -= len(page)


def _plain(page: Sequence[SessionSummary]) -> list[str]:
    ids = [printable(summary.session_id) for summary in page]
    width = min(max(map(len, ids)), _WIDEST_ID)
    return [
        f"{session_id:<{width}}  {exact_text(summary.created_at)}  {exact_text(summary.updated_at)}  "
        f"{summary.revision.version:>6}  {size_text(summary.size_bytes):>10}{_owner(summary, '  ')}"
        for session_id, summary in zip(ids, page, strict=True)
    ]


def _owner(summary: SessionSummary, separator: str = "") -> str:
    return "" if summary.owner is None else separator + printable(summary.owner)


def _print_table(page: Sequence[SessionSummary], *, show_header: bool, wide: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=show_header, header_style="bold", pad_edge=False)
    table.add_column("session", overflow="fold", min_width=12)
    for title, width in (("created (UTC)", 20), ("saved", 20 if wide else 14)):
        table.add_column(title, no_wrap=True, min_width=width)
    for title, width in (("version", 7), ("size", 10)):
        table.add_column(title, no_wrap=True, min_width=width, justify="right")
    # Where sessions have no owners there is no room to waste.
    has_owners = any(summary.owner is not None for summary in page)
    if has_owners:
        table.add_column("owner", overflow="fold", min_width=8)
    now = datetime.now(UTC)
    for summary in page:
        saved = exact_text(summary.updated_at) if wide else age_text(summary.updated_at, now)
        table.add_row(
            Text(printable(summary.session_id)),
            exact_text(summary.created_at),
            saved,
            str(summary.revision.version),
            size_text(summary.size_bytes),
            *([Text(_owner(summary))] if has_owners else []),
        )
    Console().print(table)
