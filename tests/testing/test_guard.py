"""The guard on the network: this machine alone, and the slot is named."""

import asyncio
import socket
from pathlib import Path

import pytest

from agentscope.message import Msg
from agentscope.model import ModelError
from agentscope.runtime import AgentApp, Runtime, runtime
from agentscope.testing import NetworkGuard, NetworkRefusedError, no_network
from serving import Echo, served, settings


def real(**main: object) -> dict[str, object]:
    """The settings of a vendor's model that repeats nothing."""
    arguments = {"max_retries": 0}
    return {"main": {"provider": "openai", "model": "m", "api_key": "k", "client_kwargs": arguments, **main}}


@pytest.mark.parametrize(
    ("host", "is_refused"),
    [
        *[(host, False) for host in ("", "localhost", "LOCALHOST.", "a.localhost", "127.8.0.1", "::1", "0.0.0.0")],
        *[(host, False) for host in ("::ffff:127.0.0.1", socket.gethostname())],
        *[(host, True) for host in ("example.com", "192.0.2.1", "10.0.0.1", "fe80::1%eth0", "localhost.example.com")],
    ],
)
def test_a_guard_knows_this_machine(host: str, is_refused: bool) -> None:
    guard = NetworkGuard()
    if is_refused:
        with pytest.raises(NetworkRefusedError):
            guard.refuse(host, None)
    else:
        guard.refuse(host, 80)
    assert [refused.address for refused in guard.refused] == [host] * is_refused


@pytest.mark.parametrize(
    "connect",
    [
        lambda: socket.create_connection(("example.com", 443)),
        lambda: socket.create_connection(("192.0.2.1", 443)),
        lambda: socket.create_connection(("2001:db8::1", 443)),
        lambda: socket.gethostbyname("example.com"),
        lambda: socket.getaddrinfo(b"example.com", 443),
        lambda: socket.getnameinfo(("192.0.2.1", 443), 0),
    ],
    ids=["name", "ipv4", "ipv6", "gethostbyname", "bytes", "getnameinfo"],
)
def test_another_machine_is_refused(connect: object) -> None:
    assert callable(connect)
    guard = NetworkGuard()
    with guard.active(), pytest.raises(NetworkRefusedError, match="a guarded test reaches this machine alone"):
        connect()
    assert len(guard.refused) == 1


def test_a_proxy_on_this_machine_is_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:3128")
    guard = NetworkGuard()
    guard.refuse("127.0.0.1", 3129)
    with pytest.raises(NetworkRefusedError, match=r"127\.0\.0\.1:3128"):
        guard.refuse("127.0.0.1", 3128)


def test_a_datagram_is_refused() -> None:
    with NetworkGuard().active(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        with pytest.raises(ConnectionError) as refused:
            sender.sendto(b"x", ("192.0.2.1", 53))
        sender.sendto(b"x", ("127.0.0.1", 9))
    assert isinstance(refused.value, NetworkRefusedError)
    assert refused.value.address == "192.0.2.1:53"


async def test_threads_and_loops_are_refused_and_loopback_is_not() -> None:
    async with served(Echo) as server:
        with no_network() as guard:
            assert (await server.lines({"session_id": "s", "message": Msg("u", "hi", "user").to_dict()}))[0]
            _, writer = await asyncio.open_connection("localhost", server.port)
            writer.close()
            await writer.wait_closed()
            for host in ("example.com", "192.0.2.1"):
                with pytest.raises(OSError, match="would have reached"):
                    await asyncio.open_connection(host, 443)
            guard.refused.clear()


async def test_a_unix_socket_is_of_this_machine(tmp_path: Path) -> None:
    server = await asyncio.start_unix_server(lambda reader, writer: writer.close(), tmp_path / "s")
    with no_network():
        _, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.close()
        await writer.wait_closed()
    server.close()
    await server.wait_closed()


def test_a_refusal_that_was_caught_fails_the_block() -> None:
    with pytest.raises(AssertionError, match=r"would have reached example\.com:443"), no_network():
        with pytest.raises(OSError, match="reached"):
            socket.create_connection(("example.com", 443))


def test_guards_end_in_any_order_and_those_that_are_left_refuse_on() -> None:
    first, second = NetworkGuard(), NetworkGuard()
    ends_first, ends_last = first.active(), second.active()
    ends_first.__enter__()
    with ends_last:
        ends_first.__exit__(None, None, None)
        with pytest.raises(NetworkRefusedError):
            socket.gethostbyname("example.com")
    socket.gethostbyname("localhost")
    assert [len(first.refused), len(second.refused)] == [0, 1]


class Asks(AgentApp):
    """Asks its model, and hides what goes wrong."""

    async def __call__(self, msg: Msg, ctx: object) -> Msg:
        try:
            return Msg("assistant", (await runtime.models.main([msg])).text, "assistant")
        except Exception as error:
            return Msg("assistant", f"Error: {error}", "assistant")


@pytest.mark.parametrize(
    ("main", "said"),
    [
        (real(), r"the model slot 'main' \(openai\) would have called its vendor at api\.openai\.com:443: give it"),
        (real(base_url="https://models.example.com/v1"), "the model slot 'main' .* at models.example.com:443"),
    ],
    ids=["vendor", "base_url"],
)
async def test_a_real_model_is_named_though_the_app_hides_its_error(main: dict[str, object], said: str) -> None:
    answers: list[Msg] = []
    with pytest.raises(AssertionError, match=said), no_network():
        async with Runtime(settings(models=main), app=Asks) as rt:
            answers += [msg async for msg in rt.invoke("hi")]
    assert str(answers[0].content).startswith("Error: model 'main': the connection to the vendor failed: ")


async def test_an_address_that_may_be_a_tool_s_is_not_said_to_be_the_model_s() -> None:
    guard = NetworkGuard()
    with guard.active():
        async with Runtime(settings(models=real()), app=Echo) as rt:
            with pytest.raises(
                OSError, match=r"would have reached tools\.example\.com:80.*was it the model slot 'main'"
            ):
                await asyncio.open_connection("tools.example.com", 80)
            with rt.override(models={"main": rt.models.main}), pytest.raises(OSError, match=r"network=True\)`$"):
                await asyncio.open_connection("tools.example.com", 80)


async def test_the_slot_is_in_the_error_of_the_call() -> None:
    guard = NetworkGuard()
    async with Runtime(settings(models=real()), app=Echo) as rt:
        with (
            guard.active(),
            pytest.raises(ModelError, match="model 'main': the connection to the vendor failed: the m"),
        ):
            await rt.models.main([Msg("user", "hi", "user")])
