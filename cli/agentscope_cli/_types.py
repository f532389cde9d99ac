"""``agentscope types``: a stub that tells editors and type checkers which model slots a project has."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import click

_log = logging.getLogger("agentscope.cli")

_OUTDATED = 1
"""The exit status of ``--check`` when the stub is not what the settings say."""


@click.command()
@click.argument("project", default=".", type=click.Path(path_type=Path), metavar="[PATH]")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Another file than agentapp.yaml.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="A setting; may be repeated.")
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 when the stub is out of date.")
def types(project: Path, config: Path | None, assignments: Sequence[str], check: bool) -> None:
    """Write a type stub with the model slots of the project in PATH (default: this folder)."""
    from agentscope.runtime.settings import load_model_slots
    from agentscope_cli._checkers import missing_configuration, stub_folder
    from agentscope_cli._stub import outdated_files, stub_files, write_files

    slots = load_model_slots(project, config=config, assignments=assignments)
    files = stub_files(slots)
    folder = stub_folder(project.resolve())
    outdated = outdated_files(folder, files)
    shown = _shown(folder)
    if check and outdated:
        click.echo(f"{shown} is out of date: run `agentscope types`")
        sys.exit(_OUTDATED)
    write_files(folder, files, outdated)
    click.echo(f"{shown} {'written' if outdated else 'is up to date'}: runtime.models has {_list(slots)}")
    if not check:
        for line in missing_configuration(project.resolve(), folder):
            click.echo(line)


def keep_types_current(project: Path, config: Path | None = None, assignments: Sequence[str] = ()) -> None:
    """Bring a project's stub up to date, and say so in the log; a project without one gets none.

    It reads and writes files: on an event loop, call it in a thread. What is wrong is a warning in the log.
    """
    from agentscope.errors import UserError
    from agentscope.runtime.settings import load_model_slots
    from agentscope_cli._checkers import stub_folder
    from agentscope_cli._stub import has_stub, outdated_files, stub_files, write_files

    folder = stub_folder(project.resolve())
    if not has_stub(folder):
        return
    try:
        files = stub_files(load_model_slots(project, config=config, assignments=assignments))
        outdated = outdated_files(folder, files)
        write_files(folder, files, outdated)
    except UserError as error:
        _log.warning("the type stub %s stays as it is: %s", _shown(folder), error)
        return
    if outdated:
        _log.info("the type stub %s follows the model slots", _shown(folder))


def _shown(folder: Path) -> str:
    from agentscope_cli._stub import MAIN_FILE

    file, here = folder / MAIN_FILE, Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)


def _list(slots: Sequence[str]) -> str:
    from agentscope_cli._stub import is_attribute

    return ", ".join(slot if is_attribute(slot) else f'["{slot}"]' for slot in slots) or "no slots"
