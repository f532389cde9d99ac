"""The OpenAPI document says what the server does, and the page about HTTP says what the document does."""

import asyncio
import json
import re
import runpy
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st

from agentscope.message import Msg
from agentscope.runtime import AgentApp, Runtime
from agentscope.server import create_app
from agentscope.server._openapi_document import Features, make_document
from agentscope.server._openapi_errors import REFUSALS
from agentscope.server._schemas import IDEMPOTENCY_KEY_PATTERN, TIME_PATTERN
from serving import Echo, Served, invocation, served, settings

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-the-tests-0123456789"
EVERYTHING = {"auth": {"tokens": [TOKEN]}, "replay_ttl": 60, "metrics": True}
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
EARLIEST = datetime(1000, 1, 1)  # noqa: DTZ001 - hypothesis takes bounds without a zone
METHODS = {"get", "post", "put", "patch", "delete", "options", "trace"}


class Fails(AgentApp):
    """Says a word, then fails."""

    async def __call__(self, msg: Msg, ctx: Any) -> AsyncIterator[Msg]:
        """Yield one message."""
        yield Msg("assistant", [{"type": "text", "text": "well"}], "assistant")
        raise RuntimeError("no more")


async def document_of(server: Served) -> dict[str, Any]:
    response = await server.client.get("/openapi.json", headers=HEADERS)
    document: dict[str, Any] = await response.json()
    assert (response.status, response.content_type) == (200, "application/json")
    return document


def model(document: dict[str, Any], *names: str) -> jsonschema_rs.Validator:
    """What tells whether a value is one of these models of the document."""
    anyof = [{"$ref": f"#/components/schemas/{name}"} for name in names]
    return jsonschema_rs.Draft202012Validator({"anyOf": anyof, "components": document["components"]})


def calls(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {(method, path) for path, item in document["paths"].items() for method in METHODS & set(item)}


def routes(runtime: Runtime) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for route in create_app(runtime).router.routes():
        assert route.resource is not None
        found.add((route.method.lower(), re.sub(r"\{(\w+):[^}]*\}", r"{\1}", route.resource.canonical)))
    # Nor the one that answers what matches none.
    return {(method, path) for method, path in found if method not in {"head", "*"}}


@pytest.mark.parametrize("server", [{}, EVERYTHING], ids=["nothing", "everything"])
async def test_the_document_has_what_is_switched_on(server: dict[str, Any]) -> None:
    async with served(Echo, server=server) as running:
        document = await document_of(running)
    resume = ("get", "/invocations/{invocation_id}/stream")
    assert calls(document) == routes(Runtime(settings(server=server), app=Echo)) - (set() if server else {resume})
    assert document["openapi"].startswith("3.1.")
    assert ("securitySchemes" in document["components"]) == ("security" in document) == bool(server)
    invoke, health = document["paths"]["/invoke"]["post"], document["paths"]["/health"]["get"]
    for operation in (invoke, document["paths"]["/sessions"]["get"]):
        assert ({"401", "403"} <= set(operation["responses"])) == bool(server)
    assert ("Idempotency-Key" in [each.get("name") for each in invoke["parameters"]]) == bool(server)
    assert (health["security"], "401" in health["responses"]) == ([], False)


def test_the_document_holds_together() -> None:
    text = json.dumps(make_document(Features(auth=True, replay=True, metrics=True), title="An app"))
    document = json.loads(text)
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', text)):
        part = document
        for step in reference.split("/"):
            part = part[step]
    for name, schema in document["components"]["schemas"].items():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
        assert schema["description"], name
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    links = re.findall(r'"operationId": "(\w+)", "parameters": \{', text)
    assert set(links) <= set(names)
    assert all("503" in operation["responses"] for operation in operations)
    assert "``" not in text


def test_examples_are_as_their_models_say() -> None:
    document = make_document(Features(auth=True, replay=True, metrics=True), title="An app")
    checked = 0
    for item in document["paths"].values():
        for operation in item.values():
            bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
            contents = [body.get("content", {}).get("application/json") for body in bodies]
            for content in filter(None, contents):
                shown = [content["example"]] if "example" in content else []
                shown += [example["value"] for example in content.get("examples", {}).values()]
                validator = jsonschema_rs.Draft202012Validator(
                    {**content["schema"], "components": document["components"]}
                )
                for example in shown:
                    validator.validate(example)
                    checked += 1
    assert checked > 50


@pytest.mark.parametrize(
    ("app", "content"),
    [(Echo, "hello"), (Echo, [{"type": "text", "text": "hello", "cache": True}]), (Fails, "hello")],
    ids=["a text", "blocks", "a failure"],
)
async def test_every_form_of_an_answer_is_as_the_document_says(app: type[AgentApp], content: object) -> None:
    async with served(app) as server:
        document = await document_of(server)
        line = model(document, "Message", "CompletedTrailer", "FailedTrailer")
        lines = await server.lines(invocation(content))
        events = await (await server.post(invocation(content), headers={"Accept": "text/event-stream"})).text()
        lines += [json.loads(data) for data in re.findall(r"^data: (.*)$", events, re.MULTILINE)]
        whole = await server.post(invocation(content), params={"stream": "false"})
        model(document, "Answer" if whole.status == 200 else "ErrorBody").validate(await whole.json())
    assert len(lines) == 4
    for each in lines:
        line.validate(each)


def test_what_makes_the_document_is_not_imported_before_it_is_asked_for() -> None:
    loaded = "import sys, agentscope.server; print([name for name in sys.modules if '_openapi_' in name])"
    run = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "[]"


async def test_the_document_is_made_once() -> None:
    async with served(Echo) as server:
        responses = await asyncio.gather(*(server.client.get("/openapi.json") for _ in range(8)))
        documents = {await response.read() for response in responses}
    assert len(documents) == 1


async def test_a_mounted_server_says_where_it_is() -> None:
    site = web.Application()
    site.add_subapp("/agent", create_app(Runtime(settings(), app=Echo)))
    async with TestClient(TestServer(site)) as client:
        document = await (await client.get("/agent/openapi.json")).json()
    assert document["servers"] == [{"url": "/agent"}]


def test_every_refusal_that_the_server_words_is_documented() -> None:
    documented = {(refusal.status, refusal.code) for refusal in REFUSALS}
    worded: set[tuple[int, str]] = set()
    for module in (ROOT / "kernel" / "agentscope" / "server").glob("*.py"):
        found = re.findall(r'ApiError\(\s*(\d+),\s*"([A-Z_]+)"', module.read_text(encoding="utf-8"))
        worded |= {(int(status), code) for status, code in found}
    assert len(worded) > 10
    assert worded <= documented


@pytest.mark.parametrize("path", ["/invoke", "/nothing"])
async def test_an_expectation_that_is_none_gets_the_error_shape(path: str) -> None:
    async with served(Echo) as server:
        document = await document_of(server)
        response = await server.client.post(path, data=b"{}", headers={"Expect": "a-miracle"})
        body = await response.json()
    assert (response.status, body["error"]["code"]) == (400, "INVALID_REQUEST")
    model(document, "ErrorBody").validate(body)


async def test_a_cursor_of_the_documents_form_is_a_place_in_the_order_of_sessions() -> None:
    async with served(Echo) as server:
        for cursor in ("01", "7331", "ff", "f09f92a1"):
            response = await server.client.get("/sessions", params={"cursor": cursor})
            assert response.status == 200, cursor
        for cursor in ("", "0", "00", "FF", "7g", "61" * 1025):
            response = await server.client.get("/sessions", params={"cursor": cursor})
            assert response.status == 400, cursor


@given(st.from_regex(TIME_PATTERN, fullmatch=True))
def test_every_time_of_the_documents_form_is_one(text: str) -> None:
    assert datetime.fromisoformat(text).year >= 1000


@given(st.datetimes(EARLIEST) | st.datetimes(EARLIEST, timezones=st.timezones()))
def test_every_time_that_python_writes_has_the_documents_form(time: datetime) -> None:
    offset = time.utcoffset()
    if offset is None or offset.total_seconds() % 60 == 0:
        assert re.fullmatch(TIME_PATTERN, time.isoformat())
        assert re.fullmatch(TIME_PATTERN, time.isoformat(" ", "milliseconds"))


@pytest.mark.parametrize(
    ("key", "fits"), [("k", True), ("a b", True), ("", False), (" a", False), ("a ", False), ("ü", False)]
)
def test_an_idempotency_key_has_no_blank_around_it(key: str, fits: bool) -> None:
    assert (re.fullmatch(IDEMPOTENCY_KEY_PATTERN, key) is not None) == fits


def test_the_page_about_http_is_the_one_that_the_document_makes() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "generate.py"))["http_page"]()
    assert (ROOT / "docs" / "http.md").read_text(encoding="utf-8") == page, "run `make docs`"
