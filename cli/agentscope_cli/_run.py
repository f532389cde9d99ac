"""``agentscope run``: serve a project, in this process or in several."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from agentscope.runtime import Service
    from agentscope.runtime.settings import LoadedSettings

_MOST_CLOSING_SECONDS = 60.0
"""How long a worker may take to end once its invocations have; longer, it hangs."""


@click.command()
@click.argument("project", default=".", type=click.Path(path_type=Path), metavar="[PATH]")
@click.option("--host", help="Address to listen on (server.host).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one (server.port).")
@click.option("--workers", type=click.IntRange(1), help="Processes that serve the port (server.workers).")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Another file than agentapp.yaml.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="A setting; may be repeated.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--no-platform", is_flag=True, help="Don't speak to the hosting platform.")
@click.option("--reload", is_flag=True, help="Load the project again when a file of it changes.")
# What a supervisor gives its workers: which one it is, and the descriptors of the port and of the channel.
@click.option("--as-worker", nargs=3, type=int, hidden=True)
def run(
    project: Path,
    host: str | None,
    port: int | None,
    workers: int | None,
    config: Path | None,
    assignments: Sequence[str],
    log_level: str,
    log_format: str,
    no_platform: bool,
    reload: bool,
    as_worker: tuple[int, int, int] | None,
) -> None:
    """Serve the project in PATH (default: this folder) until Ctrl-C."""
    from agentscope_cli._process import allow_many_files, outliving_hangups

    click.get_current_context().with_resource(outliving_hangups())
    from agentscope_cli._clash import find_known_clash
    from agentscope_cli._logging import configure_logging

    configure_logging(log_level, log_format)
    clash = find_known_clash()
    if clash is not None:
        from agentscope.errors import UserError

        raise UserError(clash)
    allow_many_files()

    from agentscope.runtime.settings import Flag, load_settings

    flags = {
        "server.host": Flag("--host", host),
        "server.port": Flag("--port", port),
        "server.workers": Flag("--workers", workers),
    }
    loaded = load_settings(project, config=config, assignments=assignments, flags=flags)
    if as_worker is not None:
        _serve_as_worker(loaded, *as_worker, platform=not no_platform)
    elif loaded.settings.server.workers == 1:
        watched = assignments if reload else None
        _serve(loaded, log_format, platform=not no_platform, watched=watched)
    elif reload:
        raise click.UsageError("--reload serves in one process: leave it out, or run with --workers 1")
    else:
        _supervise(loaded, log_format)


def _serve(
    loaded: "LoadedSettings",
    log_format: str,
    *,
    platform: bool,
    watched: Sequence[str] | None,
) -> None:
    """``watched`` are the assignments of the command line where changes of files reload, else None."""
    from agentscope.runtime import Runtime, Service
    from agentscope.server import serve
    from agentscope_cli._banner import announce, facts_of
    from agentscope_cli._process import run_process
    from agentscope_cli._sockets import listening_socket

    server = loaded.settings.server
    sock = listening_socket(server.host, server.port)
    service = Service(Runtime(loaded.settings, project=loaded.project, load=loaded.again), platform=platform)

    def on_ready(address: str) -> None:
        _settle_memory(service)
        announce(loaded.project.name, address, facts_of(service.runtime), log_format)

    serving = serve(service, sock, on_ready)
    if watched is not None:
        from agentscope_cli._reloading import reloading

        serving = reloading(service, loaded, watched, serving)
    run_process(serving)


def _serve_as_worker(
    loaded: "LoadedSettings",
    index: int,
    port: int,
    channel: int,
    *,
    platform: bool,
) -> None:
    import os
    import socket

    from agentscope.runtime import Runtime, Service
    from agentscope.server import Worker, serve
    from agentscope_cli._banner import facts_of
    from agentscope_cli._process import run_process

    # No process that the app starts is to have these: the port would stay open with it.
    for descriptor in (port, channel):
        os.set_inheritable(descriptor, False)
    worker = Worker(index, socket.socket(fileno=channel))
    # To a platform they are one instance.
    platform = platform and index == 0
    service = Service(Runtime(loaded.settings, project=loaded.project, load=loaded.again), platform=platform)

    def on_ready(address: str) -> None:
        _settle_memory(service)
        worker.tell("ready", address=address, facts=facts_of(service.runtime))

    run_process(serve(service, socket.socket(fileno=port), on_ready, worker=worker))


def _supervise(loaded: "LoadedSettings", log_format: str) -> None:
    import asyncio
    import sys

    from agentscope_cli._banner import announce, warn_of_sessions_apart
    from agentscope_cli._metrics_folder import metrics_folder
    from agentscope_cli._sockets import listening_socket
    from agentscope_cli._workers import Ready, Supervisor

    server = loaded.settings.server
    warn_of_sessions_apart(loaded.settings)

    def on_ready(ready: Ready) -> None:
        facts = {**ready.facts, "workers": f"{len(ready.pids)}, pids {', '.join(map(str, ready.pids))}"}
        announce(loaded.project.name, ready.address, facts, log_format)

    with listening_socket(server.host, server.port) as sock, metrics_folder(wanted=server.metrics) as metrics:
        patience = server.shutdown_timeout + _MOST_CLOSING_SECONDS
        supervisor = Supervisor(sock, server.workers, on_ready, metrics=metrics, patience=patience)
        status = asyncio.run(supervisor.run())
    sys.exit(status)


def _settle_memory(service: "Service") -> None:
    """Make garbage collections cheaper, and rarer, in a process that is this program's own.

    What the start has made stays: collections need not go through it again and again. And a server makes more objects
    in a moment than Python's default is meant for.
    """
    import gc

    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    # Much of an old version is in cycles, and the next collection of all may be far away.
    service.on_retired = gc.collect
