"""What ``agentscope run`` says when it starts: what is served where, and out of what."""

import logging
import sys
from collections.abc import Mapping

import click

from agentscope import __version__
from agentscope.runtime import Runtime
from agentscope.runtime.settings import ModelSettings, Settings

_log = logging.getLogger("agentscope.cli")


def announce(project: str, address: str, facts: Mapping[str, str], log_format: str) -> None:
    """Say that requests are answered now: rich on a terminal, plain lines elsewhere, a log line with JSON logs."""
    title = f"agentscope-kernel {__version__} serves {project} on {address}"
    if log_format == "json":
        _log.info(title, extra={"address": address, **facts})
    elif sys.stdout.isatty():
        _print_rich(title, facts)
    else:
        click.echo("\n".join([title, *(f"  {name:<9} {value}" for name, value in facts.items())]))


def warn_of_sessions_apart(settings: Settings) -> None:
    """Warn when each of several workers would have sessions of its own."""
    if settings.session.backend == "memory":
        _log.warning(
            "session.backend is memory and server.workers is %d: each worker has its own sessions, and a client meets "
            "now one, now another; choose session.backend sql, or one worker",
            settings.server.workers,
        )


def facts_of(runtime: Runtime) -> dict[str, str]:
    """What a runtime is made of, by name."""
    settings = runtime.settings
    models = [f"{slot} = {_model(model)}" for slot, model in settings.models.items()]
    return {
        "app": settings.app,
        "models": ", ".join(models) or "none",
        "mcp": _servers(runtime) or "none",
        "sessions": _session_store(runtime),
    }


def _model(model: ModelSettings) -> str:
    if model.provider == "offline":
        return "offline (no key is set)" if model.offline_without_key else "offline"
    return f"{model.provider} {model.model or ''}".strip()


def _servers(runtime: Runtime) -> str:
    known = [
        f"{name} ({len(server.tools)})" if server.is_connected else f"{name} (not there yet)"
        for name, server in runtime.servers.items()
    ]
    return ", ".join(known)


def _session_store(runtime: Runtime) -> str:
    backend = runtime.settings.session.backend
    if backend != "sql":
        return backend
    # Imported already, by the runtime that uses it.
    from agentscope_adapters.storage.repository import SqlSessionRepository

    repository = runtime.container.session_repository()
    if not isinstance(repository, SqlSessionRepository):
        return backend
    return repository.label if "://" in repository.label else f"sqlite {repository.label}"


def _print_rich(title: str, facts: Mapping[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        table.add_row(Text(f"  {name}", style="dim"), Text(value))
    console = Console()
    console.print(Text(title, style="bold green"))
    console.print(table)
