"""``Dockerfile``, as far as that goes without Docker: how the image runs, and that what it is made from is enough."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agentscope.message import Msg
from agentscope.runtime import AgentApp
from agentscope_cli._run import run
from serving import served

ROOT = Path(__file__).parents[2]


class Silent(AgentApp):
    """Says nothing."""

    async def __call__(self, msg: Msg, ctx: Any) -> AsyncIterator[Msg]:
        for _ in range(0):
            yield msg


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage: name and argument."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    found: list[list[tuple[str, str]]] = []
    for line in filter(None, text.splitlines()):
        if line.startswith("#"):
            continue
        name, _, argument = line.partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append((name, argument))
    return found


def last(name: str) -> str:
    """The argument of an instruction that the image has once."""
    [argument] = [argument for instruction, argument in stages()[-1] if instruction == name]
    return argument


def health_check(**environment: str) -> int:
    """The exit status of the image's health check, in this environment."""
    [_, code] = re.split(r"\s*CMD\s+", last("HEALTHCHECK"))
    python, *arguments = json.loads(code)
    assert python == "python"
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, timeout=30, check=False)
    return done.returncode


def test_the_image_is_no_root_and_stops_in_order() -> None:
    *_, (name, user), volume, port, signal, check, entry = stages()[-1]
    assert (name, volume[0], port, check[0]) == ("USER", "VOLUME", ("EXPOSE", "8080"), "HEALTHCHECK")
    assert all(int(number) > 0 for number in user.split(":"))
    assert json.loads(volume[1]) == ["/data", "/tmp"]
    assert signal == ("STOPSIGNAL", "SIGTERM")
    # Not through a shell, which would keep the signal to itself.
    program, command, *arguments = json.loads(entry[1])
    assert (entry[0], program, command) == ("ENTRYPOINT", "agentscope", "run")
    with run.make_context("run", list(arguments)) as context:
        assert (context.params["project"], context.params["host"]) == (Path("/app"), "0.0.0.0")


def test_only_the_wheel_and_what_it_needs_get_into_the_image() -> None:
    build, image = stages()
    copied = [argument for name, argument in image if name in {"COPY", "ADD"}]
    assert copied == ["--from=build /opt/agentscope /opt/agentscope"]
    assert {name for name, _ in build + image} & {"ARG", "ADD"} == set()
    environment = dict(pair.split("=", 1) for name, pairs in build if name == "ENV" for pair in pairs.split())
    assert environment["PIP_CONSTRAINT"] == environment["PIP_BUILD_CONSTRAINT"] == "/src/constraints.txt"


def test_what_docker_is_given_is_enough_for_the_wheel(tmp_path: Path) -> None:
    everything, *rest = [
        line
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    given = [line.removeprefix("!") for line in rest if line.startswith("!")]
    assert everything == "*"
    assert {".git", ".venv", "deploy", "examples", "tests"}.isdisjoint(given)
    without = shutil.ignore_patterns(*(line.removeprefix("**/") for line in rest if not line.startswith("!")))
    for name in given:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=without)
        else:
            shutil.copy(source, tmp_path / name)
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "dist")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "dist").glob("agentscope_kernel-*.whl"))


async def test_the_health_check_tells_a_server_that_answers_from_one_that_does_not() -> None:
    async with served(Silent) as server:
        assert await asyncio.to_thread(health_check, AGENTSCOPE_SERVER__PORT=str(server.port)) == 0
        port = server.port
    assert await asyncio.to_thread(health_check, AGENTSCOPE_SERVER__PORT=str(port)) != 0


@pytest.mark.parametrize("status", [500, 503])
async def test_the_health_check_fails_with_the_server(status: int) -> None:
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(status=status)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        assert await asyncio.to_thread(health_check, AGENTSCOPE_SERVER__PORT=str(port)) == 1
    finally:
        await runner.cleanup()
