"""SIGTERM under load: what becomes of the requests of many clients while a server with workers stops.

``cd tests && python -m faults.stopping 20`` does it twenty times and prints a table.
"""

import argparse
import asyncio
import errno
import json
import random
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path

from aiohttp import ClientConnectorError, ClientError, ClientSession, ClientTimeout, TCPConnector

from processes import Running, running
from serving import invocation

CONCURRENCY = 64
WORKERS = 2
WARM = 300
"""How many answers there are before the signal: all connections are in use by then."""

APP = """
import asyncio
from agentscope.runtime import AgentApp
from agentscope.message import Msg

class App(AgentApp):
    async def __call__(self, msg, ctx):
        for number in range(5):
            yield Msg("assistant", str(number), "assistant")
            await asyncio.sleep(0.02)
"""

WHOLE, NOT_READY, REFUSED = "whole", "503 with Retry-After", "connection refused"
NOT_LOST = {WHOLE, NOT_READY, REFUSED}
"""What a correct client knows how to go on from. All else is a request that is lost, or may be done or not."""


class Load:
    """Clients that ask again and again until they are refused. ``outcomes`` counts what came of their requests.

    Three of four keep their connections, one of four makes a new one each time; one of eight sends its body in two
    parts, with a pause between them.
    """

    def __init__(self, address: str) -> None:
        self.outcomes: Counter[str] = Counter()
        self.warm = asyncio.Event()
        self._address = address

    async def run(self) -> None:
        """Ask with all clients at once until every one of them was refused."""
        async with asyncio.TaskGroup() as group:
            for number in range(CONCURRENCY):
                group.create_task(self._client(number))

    async def _client(self, number: int) -> None:
        connector = TCPConnector(force_close=number % 4 == 0)
        async with ClientSession(self._address, connector=connector, timeout=ClientTimeout(20)) as http:
            outcome = ""
            while outcome != REFUSED:
                outcome = await _ask(http, f"s{number}", in_parts=number % 8 == 1)
                self.outcomes[outcome] += 1
                if self.outcomes[WHOLE] >= WARM:
                    self.warm.set()


async def _ask(http: ClientSession, session_id: str, *, in_parts: bool) -> str:
    body = json.dumps(invocation(session_id=session_id)).encode()
    try:
        async with http.post(
            "/invoke", data=_parts(body) if in_parts else body, headers={"Content-Type": "application/json"}
        ) as response:
            lines = (await response.text()).splitlines()
            last = json.loads(lines[-1])
            if response.status == 503 and "Retry-After" in response.headers:
                return NOT_READY
            if response.status == 200 and last["metadata"] and "error" not in last and len(lines) == 6:
                return WHOLE
            return f"{response.status} {last}"
    except ClientConnectorError as error:
        return REFUSED if error.os_error.errno == errno.ECONNREFUSED else repr(error)
    except (ClientError, TimeoutError, OSError) as error:
        return f"no whole answer: {type(error).__name__} {error}"


async def _parts(body: bytes) -> AsyncGenerator[bytes]:
    yield body[:20]
    await asyncio.sleep(random.uniform(0, 0.05))
    yield body[20:]


def make_project(folder: Path) -> Path:
    """An app that answers within a tenth of a second."""
    folder.mkdir()
    (folder / "app.py").write_text(APP)
    (folder / "agentapp.yaml").write_text("session: {backend: memory}\nserver: {shutdown_timeout: 20}\n")
    return folder


async def stop_under_load(server: Running) -> Counter[str]:
    """Put load on a server, stop it in the middle with SIGTERM, and return what became of the requests."""
    load = Load(server.address)
    running_load = asyncio.create_task(load.run())
    try:
        async with asyncio.timeout(60):
            await load.warm.wait()
            # Each time at another point of the requests that are on their way.
            await asyncio.sleep(random.uniform(0, 0.1))
            server.process.terminate()
            await running_load
    finally:
        running_load.cancel()
    await server.in_thread(Running.ended)
    return load.outcomes


def main() -> None:
    """Do it as often as is asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rounds", type=int, nargs="?", default=20)
    parser.add_argument("--workers", type=int, default=WORKERS)
    arguments = parser.parse_args()
    rounds: int = arguments.rounds
    workers: int = arguments.workers
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder) / "project")
        for number in range(rounds):
            with running(project, "--workers", str(workers)) as server:
                outcomes = asyncio.run(stop_under_load(server))
            print(number + 1, dict(outcomes), flush=True)
            total += outcomes
    lost = sum(count for outcome, count in total.items() if outcome not in NOT_LOST)
    print(f"{rounds} rounds, {CONCURRENCY} clients, {workers} workers: {dict(total)}, lost: {lost}")


if __name__ == "__main__":
    main()
