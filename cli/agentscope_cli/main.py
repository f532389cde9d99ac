"""The entry point of ``agentscope``. Only what every command needs is imported here: ``--help`` answers at once."""

import logging
import sys
from typing import Any

import click

from agentscope_cli._config import config
from agentscope_cli._db import db
from agentscope_cli._run import run
from agentscope_cli._sessions import sessions
from agentscope_cli._types import types

_USER_ERROR = 2
"""The exit status for a mistake in a project or a command, as click uses for wrong options."""


_INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells have it."""


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from agentscope import __version__

        click.echo(f"agentscope-kernel {__version__}")
        context.exit()


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; Ctrl-C ends it without a word, once it has cleaned up."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(_INTERRUPTED) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
def cli() -> None:
    """Run agent apps: a folder with agentapp.yaml and app.py becomes an HTTP service."""


cli.add_command(run)
cli.add_command(config)
cli.add_command(db)
cli.add_command(sessions)
cli.add_command(types)


def main() -> None:
    """Run the command line. A user's mistake ends in one short message and exit status 2, without a traceback."""
    try:
        cli()
    except Exception as error:
        message = _explanation(error)
        if message is None:
            raise
        if logging.getLogger("agentscope").isEnabledFor(logging.DEBUG):
            logging.getLogger("agentscope.cli").debug("what led to the message below", exc_info=error)
        click.echo(message, err=True)
        sys.exit(_USER_ERROR)


def _explanation(error: Exception) -> str | None:
    """What to tell the user instead of a traceback; None for an error of ours."""
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "agentscope":
        from agentscope_cli._clash import explain_foreign_package

        return explain_foreign_package()
    # Looked up, not imported: importing it may be what failed.
    errors = sys.modules.get("agentscope.errors")
    if errors is not None and isinstance(error, errors.UserError | errors.SessionStoreError):
        return str(error)
    return None
