"""No input, however malformed, gets a 500; every refusal has the one error shape."""

import asyncio
import json
import random
import socket
from io import BytesIO
from typing import Any

import pytest
from aiohttp import ClientResponse

from serving import Echo, Served, invocation, served

VALID = json.dumps(invocation()).encode()
JSON = {"Content-Type": "application/json"}


async def refused(response: ClientResponse) -> dict[str, Any]:
    document = json.loads(await response.text())
    assert set(document) == {"error"}
    error = document["error"]
    assert set(error) <= {"code", "message", "request_id", "details"}
    assert error["code"].isupper()
    assert error["message"]
    assert error["request_id"] == response.headers["X-Request-Id"]
    return dict(error)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        pytest.param({"session_id": None}, "session_id", id="session id null"),
        pytest.param({"session_id": ""}, "session_id", id="session id empty"),
        pytest.param({"session_id": "x" * 257}, "session_id", id="session id long"),
        pytest.param({"session_id": "a\nb"}, "session_id", id="session id with a control character"),
        pytest.param({"session_id": "a\x85b"}, "session_id", id="session id with a C1 control character"),
        pytest.param({"metdata": {}}, "metdata", id="a typo"),
        pytest.param({"metadata": []}, "metadata", id="metadata a list"),
        pytest.param({"metadata": None}, "metadata", id="metadata null"),
        pytest.param({"message": "hello"}, "message", id="message a string"),
        pytest.param({"message": {"name": "u", "role": "user"}}, "message.content", id="no content"),
        pytest.param(
            {"message": {"name": "u", "role": "robot", "content": ""}}, "message.role", id="a role that isn't"
        ),
        pytest.param({"message": {"name": 1, "role": "user", "content": ""}}, "message.name", id="name a number"),
        pytest.param(
            {"message": {"name": "u", "role": "user", "content": 1}}, "message.content", id="content a number"
        ),
        pytest.param(
            {"message": {"name": "u", "role": "user", "content": "", "when": 1}}, "message.when", id="unknown field"
        ),
        pytest.param(
            {"message": {"name": "u", "role": "user", "content": "", "timestamp": "soon"}},
            "message.timestamp",
            id="no time",
        ),
        pytest.param(
            {"message": {"name": "u", "role": "user", "content": [{"type": "text"}]}},
            "message.content[0].text",
            id="a text block without text",
        ),
        pytest.param(
            {"message": {"name": "u", "role": "user", "content": [{"type": "text", "text": 5}]}},
            "message.content[0].text",
            id="a text block with a number",
        ),
        pytest.param(
            {"message": {"name": "u", "role": "user", "content": [{"type": "smell"}]}},
            "message.content[0]",
            id="a block of no type of ours",
        ),
        pytest.param(
            {"message": {"name": "u", "role": "user", "content": [{"type": "image", "source": {"type": "url"}}]}},
            "message.content[0].source.url",
            id="an image without its address",
        ),
    ],
)
async def test_an_invalid_field_is_named(change: dict[str, object], path: str) -> None:
    async with served(Echo) as server:
        response = await server.post({**invocation(), **change})
        error = await refused(response)
    assert (response.status, error["code"]) == (400, "INVALID_REQUEST")
    assert path in [detail["path"] for detail in error["details"]]
    assert all(detail["message"] for detail in error["details"])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param(b"", "INVALID_JSON", id="empty"),
        pytest.param(b"{", "INVALID_JSON", id="cut"),
        pytest.param(b"\xff\xfe{\x00", "INVALID_JSON", id="UTF-16"),
        pytest.param(b'{"session_id": "\\ud800"}', "INVALID_JSON", id="a lone surrogate"),
        pytest.param(b"NaN", "INVALID_JSON", id="NaN"),
        pytest.param(b"[" * 5000 + b"]" * 5000, "INVALID_JSON", id="too deep to parse"),
        pytest.param(b"[" * 500 + b"]" * 500, "INVALID_REQUEST", id="too deep"),
        pytest.param(b"[]", "INVALID_REQUEST", id="a list"),
        pytest.param(b"null", "INVALID_REQUEST", id="null"),
    ],
)
async def test_a_body_that_is_no_request_is_refused(body: bytes, code: str) -> None:
    async with served(Echo) as server:
        response = await server.client.post("/invoke", data=body, headers=JSON)
        error = await refused(response)
    assert (response.status, error["code"]) == (400, code)


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        pytest.param({"Content-Type": "text/plain"}, VALID, 415, "UNSUPPORTED_MEDIA_TYPE", id="text"),
        pytest.param(
            {"Content-Type": "application/json; charset=latin-1"}, VALID, 415, "UNSUPPORTED_MEDIA_TYPE", id="latin-1"
        ),
        pytest.param({**JSON, "Content-Encoding": "compress"}, VALID, 415, "UNSUPPORTED_MEDIA_TYPE", id="compress"),
        pytest.param({**JSON, "Content-Encoding": "gzip"}, VALID, 400, "INVALID_REQUEST", id="not gzip"),
        pytest.param(JSON, b" " * 3000, 413, "PAYLOAD_TOO_LARGE", id="too large"),
    ],
)
async def test_a_body_that_can_not_be_taken_is_refused(
    headers: dict[str, str], body: bytes, status: int, code: str
) -> None:
    async with served(Echo, server={"max_body_bytes": 2000}) as server:
        response = await server.client.post("/invoke", data=body, headers=headers)
        error = await refused(response)
    assert (response.status, error["code"]) == (status, code)


async def test_a_broken_body_leaves_no_traceback_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with served(Echo) as server:
        for _ in range(3):
            response = await server.client.post("/invoke", data=VALID, headers={**JSON, "Content-Encoding": "gzip"})
            assert (response.status, response.headers["Connection"]) == (400, "close")
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_small_body_that_unpacks_to_a_huge_one_is_refused() -> None:
    import gzip

    bomb = gzip.compress(b" " * 5_000_000)
    assert len(bomb) < 20_000
    async with served(Echo, server={"max_body_bytes": 100_000}) as server:
        response = await server.client.post("/invoke", data=bomb, headers={**JSON, "Content-Encoding": "gzip"})
        assert (await refused(response))["code"] == "PAYLOAD_TOO_LARGE"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "NOT_FOUND"),
        ("GET", "/not%0Athing", 404, "NOT_FOUND"),
        ("PUT", "/", 404, "NOT_FOUND"),
        ("GET", "/invoke", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/health", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/invoke?stream=maybe", 400, "INVALID_REQUEST"),
    ],
)
async def test_a_call_of_something_else_is_refused(method: str, path: str, status: int, code: str) -> None:
    async with served(Echo) as server:
        response = await server.client.request(method, path)
        error = await refused(response)
    assert (response.status, error["code"]) == (status, code)
    assert (status == 405) == ("Allow" in response.headers)


@pytest.mark.parametrize("target", [b"OPTIONS *", b"GET http://x", b"CONNECT x:80"])
async def test_a_target_without_a_path_is_not_found(target: bytes) -> None:
    async with served(Echo) as server:
        head, body = await raw(server, target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ")
    assert json.loads(body)["error"]["code"] == "NOT_FOUND"


@pytest.mark.parametrize(
    "sent",
    [
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /invoke HTTP/1.1\r\nHost: x\r\nContent-Length: minus\r\n\r\n",
        b"POST /invoke HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=["no HTTP", "a version that isn't", "a wrong length", "a wrong header", "a long line", "TLS"],
)
async def test_what_is_not_http_gets_the_error_shape_too(sent: bytes) -> None:
    async with served(Echo) as server:
        head, body = await raw(server, sent)
    assert head.startswith(b"HTTP/1.1 400 ") or head.startswith(b"HTTP/1.0 400 ")
    assert json.loads(body)["error"]["code"] == "INVALID_REQUEST"


async def raw(server: Served, sent: bytes) -> tuple[bytes, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(sent)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


def malformed(chance: random.Random) -> tuple[bytes, dict[str, str]]:
    """A request with something wrong, or nothing: broken bytes, wrong types, odd headers."""
    headers = dict(JSON)
    values: list[Any] = [None, True, -1, 1e308, 2**70, "", "\x00", "ü" * 300, [], [[]], {}, {"type": "text"}]
    body: dict[str, Any] = json.loads(VALID)
    kind = chance.randrange(8)
    if kind == 0:
        return bytes(chance.randrange(256) for _ in range(chance.randrange(200))), headers
    if kind == 1:
        return VALID[: chance.randrange(len(VALID))], headers
    if kind == 2:
        broken = bytearray(VALID)
        broken[chance.randrange(len(broken))] = chance.randrange(256)
        return bytes(broken), headers
    if kind == 3:
        body[chance.choice(["session_id", "message", "metadata", "x" * chance.randrange(9)])] = chance.choice(values)
    elif kind == 4:
        key = chance.choice(["name", "role", "content", "id", "metadata", "timestamp", "y"])
        body["message"][key] = chance.choice(values)
    elif kind == 5:
        types = ["text", "thinking", "image", "audio", "video", "tool_use", "tool_result", "z", 3]
        blocks = [{"type": chance.choice(types), "text": chance.choice(values)} for _ in range(3)]
        body["message"]["content"] = chance.choice([blocks, [*blocks, chance.choice(values)]])
    elif kind == 6:
        headers["Content-Type"] = chance.choice(["", "json", "text/json", "application/json; charset=x", ";;;", "ü/1"])
        headers["Content-Encoding"] = chance.choice(["gzip", "deflate", "br", "x", ""])
        headers["Accept"] = chance.choice(["", ",,,", "a/b;q=x", "text/event-stream;q=2", "application/json;q=-1"])
    else:
        return b" " * chance.choice([1, 1_000, 400_000]) + VALID, headers
    return json.dumps(body).encode(), headers


async def test_two_thousand_malformed_requests_leave_the_server_answering() -> None:
    chance = random.Random(20)
    statuses: dict[int, int] = {}
    async with served(Echo, server={"max_body_bytes": 100_000}) as server:

        async def one(data: bytes, headers: dict[str, str]) -> None:
            async with server.client.post("/invoke", data=data, headers=headers) as response:
                statuses[response.status] = statuses.get(response.status, 0) + 1
                if response.status == 200:
                    await response.read()
                else:
                    await refused(response)

        for _ in range(100):
            await asyncio.gather(*(one(*malformed(chance)) for _ in range(20)))
        assert (await server.lines(invocation("still here")))[0]["content"] == "still here"
    assert sum(statuses.values()) == 2000
    assert set(statuses) <= {200, 400, 413, 415}, statuses
    assert statuses[400] > 500


async def test_bodies_cut_short_leave_the_server_answering() -> None:
    async with served(Echo) as server:
        for length in range(0, len(VALID), 7):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                head = f"POST /invoke HTTP/1.1\r\nHost: x\r\nContent-Length: {len(VALID)}\r\n\r\n"
                connection.sendall(head.encode() + VALID[:length])
            await asyncio.sleep(0)
        assert (await server.lines(invocation("still here")))[0]["content"] == "still here"


@pytest.mark.parametrize(
    "message",
    [
        pytest.param({"content": [1] * 400_000}, id="numbers for blocks"),
        pytest.param({"content": list[dict[str, str]]({} for _ in range(300_000))}, id="empty blocks"),
        pytest.param({"content": "", **{f"x{number}": 1 for number in range(80_000)}}, id="unknown fields"),
        pytest.param({"content": "", "timestamp": "1" * 1_000_000}, id="a long time"),
    ],
)
async def test_a_large_wrong_body_gets_a_short_answer(message: dict[str, Any]) -> None:
    body: dict[str, Any] = {"session_id": "s", "message": {"name": "u", "role": "user", **message}}
    async with served(Echo) as server:
        response = await server.client.post("/invoke", data=BytesIO(json.dumps(body).encode()), headers=JSON)
        text = await response.text()
    assert response.status == 400
    assert len(text) < 10_000
    assert 1 <= len(json.loads(text)["error"]["details"]) <= 20
