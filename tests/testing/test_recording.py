"""Recording and replay of what real models were asked and said; here they are servers in this process."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentscope.agent import ReActAgent
from agentscope.errors import UnknownNameError, UserError
from agentscope.message import Msg
from agentscope.model import ChatModel, ModelError
from agentscope.runtime import AgentApp, Runtime, SessionContext, runtime
from agentscope.testing import FakeToolkit, NotRecordedError, no_network, recorded, running
from serving import settings
from vendors.anthropic_server import AnthropicServer
from vendors.openai_server import OpenAIServer, ToolCall

KEY = "sk-the-secret-of-this-test"
HELLO = [Msg("user", "hello", "user")]


class App(AgentApp):
    """An agent with a tool."""

    async def on_startup(self) -> None:
        self.agent = ReActAgent("Friday", "Be brief.", runtime.models.main, toolkit=runtime.tools)

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        async for chunk in self.agent.stream(msg):
            yield chunk


def search(query: str) -> str:
    """Search."""
    return f"three {query}"


def app(base_url: str, provider: str = "openai", **client: Any) -> Runtime:
    main = {"provider": provider, "model": "m", "api_key": KEY, "base_url": base_url}
    return Runtime(settings(models={"main": {**main, "client_kwargs": {"max_retries": 0, **client}}}), app=App)


@pytest.mark.parametrize(("vendor_of", "provider"), [(OpenAIServer, "openai"), (AnthropicServer, "anthropic")])
async def test_a_recorded_conversation_is_replayed_without_its_vendor(
    vendor_of: type[OpenAIServer | AnthropicServer], provider: str, tmp_path: Path
) -> None:
    file = tmp_path / "recordings" / "cats.json"
    answers: list[list[object]] = []
    async with vendor_of() as vendor:
        vendor.say(tool_calls=[ToolCall("search", {"query": "cats"})], usage=(10, 5))
        vendor.say("Three", " cats", usage=(20, 2))
        rt = app(vendor.base_url, provider, default_headers={"X-Tenant": "the-secret-tenant"})
        async with recorded(rt, file, record=True) as models, running(rt, models=models, tools=FakeToolkit(search)):
            answers.append([msg.content async for msg in rt.invoke(f"Find cats, {KEY}")])
        base_url = vendor.base_url
    with no_network():
        rt = app(base_url, provider)
        async with recorded(rt, file) as models, running(rt, models=models, tools=FakeToolkit(search)):
            answers.append([msg.content async for msg in rt.invoke(f"Find cats, {KEY}")])
            assert not models.problems
    assert answers[0] == answers[1]
    assert "cats" in "".join(map(str, answers[0]))
    text = file.read_text()
    assert KEY not in text
    assert "tenant" not in text.lower()
    assert "header" not in text.lower()
    assert [one["slot"] for one in json.loads(text)["exchanges"]] == ["main", "main"]


async def test_what_headers_of_the_settings_say_is_taken_out_of_what_was_asked_and_said(tmp_path: Path) -> None:
    async with OpenAIServer() as vendor:
        vendor.say("You are the-secret-tenant", usage=(1, 1))
        rt = app(vendor.base_url, default_headers={"X-Tenant": "the-secret-tenant"})
        async with recorded(rt, tmp_path / "r.json", record=True) as models:
            await models["main"]([Msg("user", "Am I the-secret-tenant?", "user")])
    text = (tmp_path / "r.json").read_text()
    assert "Am I ***?" in text
    assert "secret" not in text


async def test_a_secret_that_begins_another_leaves_nothing_of_it(tmp_path: Path) -> None:
    async with OpenAIServer() as vendor:
        vendor.say("yes", usage=(1, 1))
        rt = app(vendor.base_url, default_headers={"X-Other": f"{KEY}-and-more", "X-Third": KEY[:12]})
        async with recorded(rt, tmp_path / "r.json", record=True) as models:
            await models["main"]([Msg("user", f"Is it {KEY}-and-more, or {KEY}?", "user")])
    assert "Is it ***, or ***?" in (tmp_path / "r.json").read_text()


async def test_a_secret_is_taken_out_of_the_names_in_a_request(tmp_path: Path) -> None:
    await record(tmp_path / "r.json", "one", extra_body={KEY: 1})
    assert KEY not in (tmp_path / "r.json").read_text()


async def test_each_slot_gets_its_own_answer_to_the_same_request(tmp_path: Path) -> None:
    async with OpenAIServer() as vendor:
        vendor.say("of main", usage=(1, 1))
        vendor.say("of other", usage=(1, 1))
        slot = {"provider": "openai", "model": "m", "api_key": KEY, "base_url": vendor.base_url}
        rt = Runtime(settings(models={"main": slot, "other": slot}), app=App)
        async with recorded(rt, tmp_path / "r.json", record=True) as models:
            for name in ("main", "other"):
                await models[name](HELLO)
    with no_network():
        async with recorded(rt, tmp_path / "r.json") as models:
            assert [(await models[name](HELLO)).text for name in ("other", "main")] == ["of other", "of main"]


async def record(file: Path, *said: str, messages: list[Msg] = HELLO, **options: Any) -> None:
    async with OpenAIServer() as vendor:
        for text in said:
            vendor.say(text, usage=(1, 1))
        async with recorded(app(vendor.base_url), file, record=True) as models:
            for _ in said:
                await models["main"](messages, **options)


async def replay(file: Path, messages: list[Msg] = HELLO, **options: Any) -> str:
    async with recorded(app("http://127.0.0.1:9"), file, how="record it again") as models:
        return (await models["main"](messages, **options)).text


async def test_the_same_request_gets_its_answers_in_order(tmp_path: Path) -> None:
    await record(tmp_path / "r.json", "one", "two")
    async with recorded(app("http://127.0.0.1:9"), tmp_path / "r.json") as models:
        assert [(await models["main"](HELLO)).text for _ in range(2)] == ["one", "two"]
        with pytest.raises(NotRecordedError, match=r"r\.json does not hold \(any more\)"):
            await models["main"](HELLO)


async def test_a_changed_request_shows_what_changed_and_how_to_record_it(tmp_path: Path) -> None:
    await record(tmp_path / "r.json", "one")
    with pytest.raises(NotRecordedError) as failed:
        await replay(tmp_path / "r.json", [Msg("user", "good-bye", "user")])
    text = str(failed.value)
    assert text.startswith("the model of the slot 'main' was asked what")
    assert '-      "content": "hello"' in text
    assert '+      "content": "good-bye"' in text
    assert text.endswith("if that is as it should be, record it again")
    assert failed.value.slot == "main"


async def test_a_long_difference_is_cut(tmp_path: Path) -> None:
    await record(tmp_path / "r.json", "one")
    with pytest.raises(NotRecordedError, match=r"… and \d+ lines more"):
        await replay(tmp_path / "r.json", [Msg("user", str(number), "user") for number in range(50)])


async def test_what_is_sent_with_a_request_is_neither_kept_nor_compared(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    options: dict[str, Any] = {
        "temperature": 0,
        "max_tokens": 5,
        "extra_body": {"user": {"api_key": "abc"}, "tags": ["a"]},
    }
    await record(file, "one", **options, extra_headers={"Authorization": "abc"}, timeout=3)
    assert "abc" not in file.read_text()
    assert await replay(file, **options, timeout=9) == "one"
    options["temperature"] = 1
    with pytest.raises(NotRecordedError, match='-    "temperature": 0'):
        await replay(file, **options)


async def test_a_picture_is_compared_by_its_digest(tmp_path: Path) -> None:
    def picture(data: str) -> list[Msg]:
        source: Any = {"type": "base64", "media_type": "image/png", "data": data}
        return [Msg("user", [{"type": "image", "source": source}], "user")]

    await record(tmp_path / "r.json", "a cat", messages=picture("QUJD"))
    assert "QUJD" not in (tmp_path / "r.json").read_text()
    assert await replay(tmp_path / "r.json", picture("QUJD")) == "a cat"
    with pytest.raises(NotRecordedError):
        await replay(tmp_path / "r.json", picture("QUJE"))


async def test_a_recording_in_which_a_model_failed_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    await record(file, "one")
    async with OpenAIServer() as vendor:
        vendor.fail(401)
        async with recorded(app(vendor.base_url), file, record=True) as models:
            with pytest.raises(ModelError):
                await models["main"](HELLO)
        assert "nothing was written to" in models.problems[0]
    assert await replay(file) == "one"


async def test_a_model_that_fails_after_another_call_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    await record(file, "as it was")
    before = file.read_text()
    async with OpenAIServer() as vendor:
        vendor.say("half of it", usage=(1, 1))
        vendor.fail(401)
        async with recorded(app(vendor.base_url), file, record=True) as models:
            assert (await models["main"](HELLO)).text == "half of it"
            with pytest.raises(ModelError):
                await models["main"](HELLO)
    assert file.read_text() == before


async def test_a_reader_that_leaves_leaves_again_in_the_replay(tmp_path: Path) -> None:
    async def first(model: ChatModel) -> str:
        chunks: Any = model.stream(HELLO)
        chunk = await anext(chunks)
        await chunks.aclose()
        return str(chunk.text)

    async with OpenAIServer() as vendor:
        vendor.say("one", " two")
        async with recorded(app(vendor.base_url), tmp_path / "r.json", record=True) as models:
            said = await first(models["main"])
    async with recorded(app("http://127.0.0.1:9"), tmp_path / "r.json") as models:
        assert await first(models["main"]) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no recording"),
        ('{"agentscope_recording": 2, "exchanges": []}', "is of version 2"),
        ("[]", "is no rec"),
    ],
    ids=["no JSON", "version", "another file"],
)
async def test_a_file_that_is_no_recording_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(UserError, match=said):
        await replay(tmp_path / "r.json")


async def test_recorded_models_are_the_project_s_slots(tmp_path: Path) -> None:
    (tmp_path / "agentapp.yaml").write_text("models: {main: {provider: offline}, other: {provider: offline}}")
    async with recorded(tmp_path, tmp_path / "r.json") as models:
        assert list(models) == ["main", "other"]
        assert len(models) == 2
        with pytest.raises(UnknownNameError, match="no model slot named 'mian'; did you mean 'main'"):
            models["mian"]
        with pytest.raises(NotRecordedError):
            await models["other"](HELLO)
        assert not (tmp_path / "r.json").exists()
