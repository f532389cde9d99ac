"""Answers are read on after a lost connection, at whichever replica."""

import asyncio
import json
from pathlib import Path

from aiohttp import ClientResponse, ClientSession

from faults.databases import Database
from faults.load import read_session
from faults.replicas import make_project, replicas
from serving import invocation

_LINES = 220
_BREAKS = 10
_READ_BETWEEN = 20


async def test_a_client_that_loses_its_connection_ten_times_reads_the_unbroken_stream(
    client: ClientSession, database: Database, tmp_path: Path
) -> None:
    server = {"replay_ttl": 60, "on_disconnect": "continue"}
    project = make_project(tmp_path / "project", session=database.settings, server=server)
    with replicas(project) as made:
        body = invocation("1", "s1", metadata={"says": _LINES})
        lines: list[bytes] = []
        response = await client.post(f"{made[0].address}/invoke", json=body)
        invocation_id = response.headers["X-Invocation-Id"]
        for turn in range(_BREAKS):
            await _read(response, lines, _READ_BETWEEN)
            response.close()
            address = made[(turn + 1) % 2].address
            response = await client.get(
                f"{address}/invocations/{invocation_id}/stream", params={"after": str(len(lines))}
            )
            assert response.status == 200, await response.text()
        await _read(response, lines)
        unbroken = await client.get(f"{made[1].address}/invocations/{invocation_id}/stream")
        assert b"".join(lines) == b"".join(line for line in await _all(unbroken) if line.strip())
        said = [json.loads(line).get("content") for line in lines]
        assert said == [*map(str, range(_LINES)), "1", None]
        # It ran once, to its end.
        assert await read_session(client, made[1], "s1") == [1]


async def test_of_a_replica_that_dies_the_stream_ends_and_the_key_is_not_used_twice(
    client: ClientSession, database: Database, tmp_path: Path
) -> None:
    server = {"replay_ttl": 60, "on_disconnect": "continue"}
    settings = {**database.settings, "lease_ttl": 1}
    project = make_project(tmp_path / "project", session=settings, server=server)
    with replicas(project) as (one, two):
        body = invocation("1", "s1", metadata={"says": 1_000_000})
        key = {"Idempotency-Key": "k"}
        response = await client.post(f"{one.address}/invoke", json=body, headers=key)
        lines: list[bytes] = []
        await _read(response, lines, _READ_BETWEEN)
        invocation_id = response.headers["X-Invocation-Id"]
        again = asyncio.create_task(client.post(f"{two.address}/invoke", json=body, headers=key))
        followed = await again
        one.kill()
        rest = await _all(followed)
        assert followed.headers["X-Invocation-Id"] == invocation_id
        trailer = json.loads(rest[-1])
        assert trailer["error"]["code"] == "CANCELLED"
        numbers = [int(json.loads(line)["content"]) for line in rest[:-1] if line.strip()]
        assert numbers == list(range(len(numbers)))
        assert await read_session(client, two, "s1") == []


async def _read(response: ClientResponse, lines: list[bytes], count: int | None = None) -> None:
    """Add so many lines, or all that are left; signs of life are none."""
    wanted = None if count is None else len(lines) + count
    while wanted is None or len(lines) < wanted:
        line = await response.content.readline()
        if not line:
            assert wanted is None, "the stream ended"
            return
        if line.strip():
            lines.append(line)


async def _all(response: ClientResponse) -> list[bytes]:
    return (await response.read()).splitlines(keepends=True)
