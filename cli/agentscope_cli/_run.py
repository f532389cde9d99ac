"""``agentscope run``: serve a project."""

from collections.abc import Sequence
from pathlib import Path

import click


@click.command()
@click.argument("project", default=".", type=click.Path(path_type=Path), metavar="[PATH]")
@click.option("--host", help="Address to listen on (server.host).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one (server.port).")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Another file than agentapp.yaml.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="A setting; may be repeated.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--no-platform", is_flag=True, help="Don't speak to the hosting platform.")
def run(
    project: Path,
    host: str | None,
    port: int | None,
    config: Path | None,
    assignments: Sequence[str],
    log_level: str,
    log_format: str,
    no_platform: bool,
) -> None:
    """Serve the project in PATH (default: this folder) until Ctrl-C."""
    import asyncio
    import gc

    from agentscope_cli._clash import find_known_clash
    from agentscope_cli._logging import configure_logging

    configure_logging(log_level, log_format)
    clash = find_known_clash()
    if clash is not None:
        from agentscope.errors import UserError

        raise UserError(clash)

    from agentscope.runtime import Runtime
    from agentscope.runtime.settings import Flag, load_settings
    from agentscope.server import serve
    from agentscope_cli._banner import announce, warn_of_unused_keys

    flags = {"server.host": Flag("--host", host), "server.port": Flag("--port", port)}
    loaded = load_settings(project, config=config, assignments=assignments, flags=flags)
    warn_of_unused_keys(loaded, no_platform=no_platform)
    runtime = Runtime(loaded.settings, project=loaded.project)

    def on_ready(address: str) -> None:
        # What the start has made stays: garbage collections need not go through it again and again. The process is
        # this program's own, and a server makes more objects in a moment than Python's default is meant for.
        gc.freeze()
        gc.set_threshold(10_000, 10, 10)
        announce(runtime, address, log_format)

    asyncio.run(serve(runtime, on_ready))
