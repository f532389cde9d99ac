"""Several processes on one database."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from agentscope.runtime.settings import SessionSettings
from agentscope_adapters.storage.repository import open_repository
from storage.helpers import items

TURNS = """
import asyncio, os, sys
from pathlib import Path
from pydantic import SecretStr
from agentscope.runtime.settings import SessionSettings
from agentscope.session import Claim, ListChange, ModuleChange, ModuleHead
from agentscope_adapters.storage.repository import open_repository

async def turn(repository, number):
    claim = Claim("s", f"{os.getpid()} {number}")
    with repository.watch("s") as pause:
        attempt = 0
        while (lease := await repository.take_lease(claim, 15, waits=True)) is None:
            await pause(attempt)
            attempt += 1
    turns = lease.revision.version
    head = None if turns else ModuleHead("{}", {"/content": 1})
    item = ListChange(turns, [f'"{claim.owner} after {turns}"'])
    await repository.save(lease, {"memory": ModuleChange(head, {"/content": item})}, expected=lease.revision)
    await repository.release_leases([claim])

async def main():
    settings = SessionSettings(url=SecretStr(sys.argv[1]), auto_migrate=True)
    print("ready", flush=True)
    input()
    async with open_repository(settings, Path.cwd()) as repository:
        for number in range(20):
            await turn(repository, number)

asyncio.run(main())
"""


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
async def test_processes_take_turns_in_one_session_and_none_is_lost(
    request: pytest.FixtureRequest, tmp_path: Path, run_python: Callable[..., list[str]], backend: str
) -> None:
    url = "sqlite:///sessions.db" if backend == "sqlite" else str(request.getfixturevalue("postgres_url"))

    # From an empty database: they also make the schema side by side.
    run_python(TURNS, url, processes=3)

    async with open_repository(SessionSettings(url=SecretStr(url)), tmp_path) as repository:
        said = await items(repository)
    assert [item.split(" after ")[1] for item in said] == [f'{turn}"' for turn in range(60)]
    for process in {item.split()[0] for item in said}:
        assert [item.split()[1] for item in said if item.split()[0] == process] == [str(turn) for turn in range(20)]
