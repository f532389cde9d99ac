"""``agentscope config``: what the configuration of a project comes to."""

import json
from pathlib import Path

import click

_WIDEST_VALUE = 48  # a longer one, such as a script, pushes its own origin to the right and not those of all others


@click.group()
def config() -> None:
    """Look at a project's configuration."""


@config.command()
@click.argument("path", type=click.Path(path_type=Path), default=".")
@click.option("--config", "file", type=click.Path(path_type=Path), help="Another file than PATH/agentapp.yaml.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Set a dotted key; the value is YAML.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
def show(path: Path, file: Path | None, assignments: tuple[str, ...], as_json: bool) -> None:
    """Print every effective setting and where it came from. Secrets are masked."""
    # Not at the top of the module: `agentscope --help` must not wait for pydantic.
    from agentscope.runtime.settings import describe, load_settings

    described = describe(load_settings(path, config=file, assignments=assignments))
    if as_json:
        settings = {entry.key: {"value": entry.value, "origin": entry.origin} for entry in described}
        _echo(json.dumps(settings, indent=2, ensure_ascii=False))
        return
    rows = [(entry.key, _text(entry.value), entry.origin) for entry in described]
    key_width, value_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    for key, value, origin in rows:
        _echo(f"{key:<{key_width}}  {value:<{min(value_width, _WIDEST_VALUE)}}  {origin}")


def _echo(line: str) -> None:
    # A variable may hold bytes that are not UTF-8, which Python keeps as characters that can't be printed.
    click.echo(line.encode("utf-8", "backslashreplace").decode())


def _text(value: object) -> str:
    """``value`` on one line: a plain text as it is, everything else in JSON."""
    if isinstance(value, str) and value and value.isprintable():
        return value
    return json.dumps(value, ensure_ascii=False)
