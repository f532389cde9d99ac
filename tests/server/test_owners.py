"""``session.owner_claim``: a session belongs to who made it, and nobody else learns that it is there."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientResponse

from agentscope.auth import Claims
from agentscope.errors import ForbiddenError, SessionNotFoundError
from agentscope.memory import InMemoryMemory
from agentscope.message import Msg
from agentscope.runtime import AgentApp, Runtime, SessionContext, runtime
from agentscope.session import InMemorySessionRepository
from serving import Served, invocation, served, settings

ALICE = {"X-User": "alice"}
BOB = {"X-User": "bob"}


class Header:
    """Believes what a header says."""

    async def authenticate(self, headers: Mapping[str, str]) -> Claims:
        """The name in the header as a claim; none for nobody."""
        name = headers.get("X-User")
        return {} if name is None else {"sub": name}


class Notes(AgentApp):
    """Keeps what it is told, unless it is told to wait or to keep nothing."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()

    async def on_startup(self) -> None:
        """Make the memory."""
        self.memory = InMemoryMemory()

    async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
        """Yield who is there and what is known."""
        text = msg.get_text_content()
        if text != "blind":
            await runtime.session.load_session_state(ctx.session_id, memory=self.memory)
        known = [said.get_text_content() for said in await self.memory.get_memory()]
        yield Msg("assistant", f"{(ctx.identity or {}).get('sub')}: {known}", "assistant")
        await self.memory.add(msg)
        if text == "wait":
            self.waiting.set()
            await asyncio.Event().wait()
        if text != "unsaved":
            await runtime.session.save_session_state(ctx.session_id, memory=self.memory)


@asynccontextmanager
async def owned(store: InMemorySessionRepository | None = None, **server: Any) -> AsyncGenerator[Served]:
    sections: dict[str, Any] = {"session": {"backend": "memory", "owner_claim": "sub"}, "server": server}
    store = store or InMemorySessionRepository()
    async with served(Notes, repository=store, authenticator=Header(), **sections) as running:
        yield running


async def _tries(server: Served, headers: Mapping[str, str], invocation_id: str) -> list[ClientResponse]:
    """Every call that names a session, or something of one."""
    client = server.client
    return [
        await server.post(invocation(), headers=headers),
        await server.post(invocation("blind"), headers=headers),
        await server.post(invocation(), headers={**headers, "Idempotency-Key": "k"}),
        await server.post(invocation(), headers={**headers, "Idempotency-Key": "other"}),
        await client.get("/sessions/s1", headers=headers),
        await client.get("/sessions/s1/messages", headers=headers),
        await client.delete("/sessions/s1", headers=headers),
        await client.post("/sessions/s1/cancel", headers=headers),
        await client.get(f"/invocations/{invocation_id}/stream", headers=headers),
    ]


@pytest.mark.parametrize("at", ["the same replica", "another replica"])
@pytest.mark.parametrize("state", ["idle", "running", "running, never saved", "deleted from memory"])
async def test_nobody_else_finds_a_session(state: str, at: str) -> None:
    store = InMemorySessionRepository()
    async with owned(store, replay_ttl=60) as first, owned(store, replay_ttl=60) as second:
        server = first if at == "the same replica" else second
        headers = {**ALICE, "Idempotency-Key": "k"}
        if state != "running, never saved":
            await (await first.post(invocation(), headers=headers)).read()
        running = None
        if state.startswith("running"):
            running = await first.post(invocation("wait"), headers=ALICE)
            await running.content.readline()
        if state == "deleted from memory":
            first.runtime.scopes.drop("s1")
        answer = await first.post(invocation(), headers=headers) if running is None else running
        before = await _stored(store)
        if state == "running, never saved" and at == "another replica":
            # Nothing says yet whose it is: who wants to use it waits until that is known.
            statuses = {(await server.client.get("/sessions/s1", headers=BOB)).status}
            statuses.add((await server.client.post("/sessions/s1/cancel", headers=BOB)).status)
        else:
            tries = await _tries(server, BOB, answer.headers["X-Invocation-Id"])
            statuses = {response.status for response in tries}
            assert {(await response.json())["error"]["code"] for response in tries} == {"NOT_FOUND"}
        assert statuses == {404}
        assert await _stored(store) == before
        listed = await server.client.get("/sessions", headers=BOB)
        assert (await listed.json())["sessions"] == []
        if running is not None:
            assert (await second.client.post("/sessions/s1/cancel", headers=ALICE)).status == 202


async def _stored(store: InMemorySessionRepository) -> object:
    summaries = await store.list_sessions()
    return summaries, [await store.load(summary.session_id) for summary in summaries]


async def test_the_owner_finds_and_may_do_everything() -> None:
    async with owned() as server:
        first = await server.lines(invocation("one"), headers=ALICE)
        second = await server.lines(invocation("two"), headers=ALICE)
        assert [first[0]["content"], second[0]["content"]] == ["alice: []", "alice: ['one']"]
        await server.lines(invocation("three", "s2"), headers=BOB)
        listed = await (await server.client.get("/sessions", headers=ALICE)).json()
        assert [session["session_id"] for session in listed["sessions"]] == ["s1"]
        messages = await (await server.client.get("/sessions/s1/messages", headers=ALICE)).json()
        assert [message["content"] for message in messages["messages"]] == ["one", "two"]
        assert (await server.client.delete("/sessions/s1", headers=ALICE)).status == 204
        # Now it is nobody's, and anybody's to begin.
        assert (await server.lines(invocation("four"), headers=BOB))[0]["content"] == "bob: []"


async def test_what_was_never_saved_is_not_told_to_others_either() -> None:
    async with owned() as server:
        await server.lines(invocation("unsaved"), headers=ALICE)
        assert (await server.post(invocation("blind"), headers=BOB)).status == 404


async def test_a_session_of_before_the_rule_is_nobodys() -> None:
    store = InMemorySessionRepository()
    async with served(Notes, repository=store) as server:
        await server.lines(invocation())
    async with owned(store) as server:
        assert (await server.post(invocation(), headers=ALICE)).status == 404
        assert (await server.client.get("/sessions/s1", headers=ALICE)).status == 404


async def test_two_who_begin_one_session_at_two_replicas_do_not_share_it() -> None:
    store = InMemorySessionRepository()
    async with owned(store) as first, owned(store) as second:
        answers = await asyncio.gather(
            first.post(invocation("mine"), headers=ALICE), second.post(invocation("mine too"), headers=BOB)
        )
        texts = [await answer.text() for answer in answers]
        assert sorted(answer.status for answer in answers) == [200, 404]
        assert not any("bob: ['mine']" in text or "alice: ['mine too']" in text for text in texts)


async def test_a_caller_without_the_claim_is_refused() -> None:
    async with owned() as server:
        for response in (
            await server.post(invocation()),
            await server.client.get("/sessions"),
            await server.client.delete("/sessions/s1"),
        ):
            assert response.status == 403
            assert (await response.json())["error"]["code"] == "FORBIDDEN"


async def test_an_app_can_not_reach_into_the_sessions_of_others() -> None:
    class Curious(Notes):
        async def __call__(self, msg: Msg, ctx: SessionContext) -> AsyncIterator[Msg]:
            if msg.get_text_content() == "look":
                await runtime.session.load_session_state("s1", memory=self.memory)
            async for said in super().__call__(msg, ctx):
                yield said

    store = InMemorySessionRepository()
    sections: dict[str, Any] = {"session": {"backend": "memory", "owner_claim": "sub"}}
    async with served(Curious, repository=store, authenticator=Header(), **sections) as server:
        await server.lines(invocation("secret"), headers=ALICE)
        response = await server.post(invocation("look", "s2"), headers=BOB)
        assert response.status == 404


async def test_without_http_the_rule_is_the_same() -> None:
    rt = Runtime(settings(session={"backend": "memory", "owner_claim": "sub"}), app=Notes)
    async with rt:
        assert [msg.content async for msg in rt.invoke("one", session_id="s1", identity={"sub": "a"})] == ["a: []"]
        with pytest.raises(SessionNotFoundError):
            await anext(rt.invoke("two", session_id="s1", identity={"sub": "b"}))
        with pytest.raises(ForbiddenError):
            await anext(rt.invoke("three", session_id="s1"))
        for claim in ("", "a\0", "\ud800", True, None, ["a"], "a" * 2000):
            with pytest.raises(ForbiddenError):
                await anext(rt.invoke("three", session_id="s1", identity={"sub": claim}))
        # A program that asks for nobody in particular looks after all of them.
        assert await rt.delete_session("s1")


async def test_a_session_that_was_deleted_elsewhere_is_not_its_former_owners() -> None:
    store = InMemorySessionRepository()
    async with owned(store) as first, owned(store) as second:
        await first.lines(invocation("alice's"), headers=ALICE)
        assert (await second.client.delete("/sessions/s1", headers=ALICE)).status == 204
        assert (await second.lines(invocation("bob's"), headers=BOB))[0]["content"] == "bob: []"
        assert (await first.client.delete("/sessions/s1", headers=ALICE)).status == 404
        assert (await first.post(invocation(), headers=ALICE)).status == 404
        assert (await first.lines(invocation("more"), headers=BOB))[0]["content"] == 'bob: ["bob\'s"]'


async def test_what_is_left_here_of_a_session_that_another_owner_made_anew_elsewhere_is_not_shown_to_them() -> None:
    store = InMemorySessionRepository()
    async with owned(store) as first, owned(store) as second:
        await first.lines(invocation("a secret of alice"), headers=ALICE)
        assert (await second.client.delete("/sessions/s1", headers=ALICE)).status == 204
        await second.lines(invocation("of bob"), headers=BOB)
        # It loads nothing: what it knows is what is left in this process.
        assert (await first.lines(invocation("blind"), headers=BOB))[0]["content"] == "bob: []"


async def test_what_is_left_here_of_a_session_that_was_deleted_elsewhere_keeps_nobody_from_making_it_anew() -> None:
    store = InMemorySessionRepository()
    async with owned(store) as first, owned(store) as second:
        await first.lines(invocation("a secret of alice"), headers=ALICE)
        assert (await second.client.delete("/sessions/s1", headers=ALICE)).status == 204
        assert (await first.lines(invocation("of bob"), headers=BOB))[0]["content"] == "bob: []"


async def test_nobody_takes_the_place_of_another_owners_invocation() -> None:
    sections: dict[str, Any] = {
        "session": {"backend": "memory", "owner_claim": "sub", "on_conflict": "replace", "queue_timeout": 0.5}
    }
    store = InMemorySessionRepository()
    async with (
        served(Notes, repository=store, authenticator=Header(), **sections) as first,
        served(Notes, repository=store, authenticator=Header(), **sections) as second,
    ):
        running = await first.post(invocation("wait"), headers=ALICE)
        await running.content.readline()
        assert (await second.client.delete("/sessions/s1", headers=BOB)).status in {404, 409}
        assert (await second.post(invocation(), headers=BOB)).status in {404, 409}
        assert (await second.client.post("/sessions/s1/cancel", headers=ALICE)).status == 202
        trailer = (await running.text()).splitlines()[-1]
        assert "cancelled by a request" in trailer
