"""``InMemoryMemory``: messages, marks, the summary, and the two forms of its state."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentscope.errors import OutsideInvocationError, StateMismatchError
from agentscope.memory import InMemoryMemory
from agentscope.message import Msg
from agentscope.runtime import AgentApp, Runtime, SessionContext
from serving import settings as settings_of


def said(text: str, **fields: Any) -> Msg:
    return Msg("ada", text, "user", **fields)


async def texts(memory: InMemoryMemory, **conditions: Any) -> list[Any]:
    return [msg.content for msg in await memory.get_memory(**conditions)]


async def test_messages_come_back_in_the_order_in_which_they_were_added() -> None:
    memory = InMemoryMemory()
    await memory.add(said("one"))
    await memory.add([said("two"), said("three")])
    await memory.add(None)
    assert await texts(memory) == ["one", "two", "three"]
    assert await memory.size() == 3


async def test_a_message_is_added_once_unless_duplicates_are_allowed() -> None:
    memory, msg = InMemoryMemory(), said("one")
    await memory.add(msg)
    await memory.add([msg, said("two")])
    assert await texts(memory) == ["one", "two"]
    await memory.add(msg, allow_duplicates=True)
    assert await texts(memory) == ["one", "two", "one"]


async def test_a_memory_keeps_the_message_as_it_was_added() -> None:
    memory = InMemoryMemory()
    msg = Msg("ada", [{"type": "text", "text": "before"}], "user", metadata={"tags": ["a"]})
    await memory.add(msg)
    msg.name = "eve"
    msg.get_content_blocks("text")[0]["text"] = "after"
    msg.metadata["tags"].append("b")
    (kept,) = await memory.get_memory()
    assert (kept.name, kept.content, kept.metadata) == ("ada", [{"type": "text", "text": "before"}], {"tags": ["a"]})
    assert (kept.id, kept.timestamp) == (msg.id, msg.timestamp)


async def test_a_message_of_a_memory_can_not_be_changed() -> None:
    memory = InMemoryMemory()
    await memory.add(said("one"))
    (kept,) = await memory.get_memory()
    with pytest.raises(AttributeError, match="can't be changed: delete it there and add another"):
        kept.content = "two"
    assert isinstance(kept, Msg)


@pytest.mark.parametrize("wrong", ["text", {"role": "user"}, 7], ids=["text", "dictionary", "number"])
async def test_what_is_no_message_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError):
        await InMemoryMemory().add([wrong])


async def test_messages_are_deleted_by_id() -> None:
    memory, messages = InMemoryMemory(), [said(text) for text in "abc"]
    await memory.add(messages)
    assert await memory.delete([messages[0].id, messages[2].id, "unknown"]) == 2
    assert await texts(memory) == ["b"]
    assert await memory.delete(messages[1].id) == 1
    assert await memory.size() == 0


async def test_a_deleted_message_can_be_added_again() -> None:
    memory, msg = InMemoryMemory(), said("one")
    await memory.add(msg)
    await memory.delete([msg.id])
    await memory.add(msg)
    assert await texts(memory) == ["one"]


async def test_messages_are_found_and_deleted_by_their_marks() -> None:
    memory = InMemoryMemory()
    await memory.add(said("plain"))
    await memory.add(said("hint"), marks="hint")
    await memory.add(said("both"), marks=["hint", "old"])
    await memory.add(said("old"), marks=["old"])
    assert await texts(memory, mark="hint") == ["hint", "both"]
    assert await texts(memory, exclude_mark="hint") == ["plain", "old"]
    assert await texts(memory, mark="hint", exclude_mark="old") == ["hint"]
    assert await memory.delete_by_mark("nothing") == 0
    assert await memory.delete_by_mark(["hint"]) == 2
    assert await texts(memory) == ["plain", "old"]


async def test_marks_are_replaced_added_and_taken_away() -> None:
    memory, messages = InMemoryMemory(), [said(text) for text in "abc"]
    await memory.add(messages[:2], marks="new")
    await memory.add(messages[2])
    assert await memory.update_messages_mark("read", old_mark="new", msg_ids=[messages[0].id, messages[2].id]) == 1
    assert [marks for _, marks in memory.content] == [["read"], ["new"], []]
    assert await memory.update_messages_mark("all") == 3
    assert await memory.update_messages_mark("all") == 0
    assert await memory.update_messages_mark(None, old_mark="all", msg_ids=messages[1].id) == 1
    assert [marks for _, marks in memory.content] == [["read", "all"], ["new"], ["all"]]


@pytest.mark.parametrize("marks", [7, ["a", 7]], ids=["number", "list with a number"])
async def test_marks_are_strings(marks: Any) -> None:
    with pytest.raises(TypeError, match="marks must be"):
        await InMemoryMemory().add(said("one"), marks=marks)


async def test_a_mark_to_look_for_is_one_string() -> None:
    wrong: Any = ["a"]
    with pytest.raises(TypeError, match="exclude_mark must be a string"):
        await InMemoryMemory().get_memory(exclude_mark=wrong)


async def test_the_summary_comes_first_as_the_user_s_words() -> None:
    memory = InMemoryMemory()
    await memory.add(said("two"))
    await memory.update_compressed_summary("one")
    first, second = await memory.get_memory()
    assert (first.role, first.content, second.content) == ("user", "one", "two")
    assert await texts(memory, prepend_summary=False) == ["two"]
    await memory.clear()
    assert (await memory.size(), memory.compressed_summary) == (0, "one")


async def test_the_state_has_the_form_of_v1() -> None:
    memory = InMemoryMemory()
    await memory.add(said("one", id="m1", timestamp="t"), marks="hint")
    message: dict[str, Any] = {
        "id": "m1",
        "name": "ada",
        "role": "user",
        "content": "one",
        "metadata": {},
        "timestamp": "t",
    }
    assert memory.state_dict() == {"_compressed_summary": "", "content": [[message, ["hint"]]]}


async def test_a_state_is_loaded_as_it_was_saved() -> None:
    memory, other = InMemoryMemory(), InMemoryMemory()
    await memory.add([said("one"), Msg("bot", [{"type": "text", "text": "two"}], "assistant")], marks=["a", "b"])
    await memory.update_compressed_summary("earlier")
    await other.add(said("gone"))
    other.load_state_dict(memory.state_dict())
    assert other.state_dict() == memory.state_dict()


async def test_the_older_form_holds_the_messages_alone() -> None:
    memory = InMemoryMemory()
    memory.load_state_dict({"content": [said("one").to_dict(), said("two").to_dict()]})
    assert await texts(memory) == ["one", "two"]
    assert [marks for _, marks in memory.content] == [[], []]


NO_STATES: dict[str, Any] = {
    "no content": {},
    "list": [],
    "text": "text",
    "number": {"content": [7]},
    "half a message": {"content": [[{"name": "ada"}, []]]},
    "no message": {"content": [{"role": "nobody"}]},
    "wrong role": {"content": [{"name": "ada", "content": "x", "role": "nobody"}]},
}


@pytest.mark.parametrize("state", NO_STATES.values(), ids=NO_STATES.keys())
async def test_what_is_no_state_is_refused_and_changes_nothing(state: Any) -> None:
    memory = InMemoryMemory()
    await memory.add(said("one"))
    with pytest.raises(StateMismatchError, match="InMemoryMemory can't load this state"):
        memory.load_state_dict(state)
    assert await texts(memory) == ["one"]


async def test_a_state_without_messages_is_taken_when_it_need_not_be_whole() -> None:
    memory = InMemoryMemory()
    await memory.add(said("one"))
    memory.load_state_dict({}, strict=False)
    assert await texts(memory) == ["one"]


class Remembers(AgentApp):
    """Adds what it hears to one memory for all; fails when it is told so."""

    def __init__(self) -> None:
        self.memory = InMemoryMemory()

    async def on_startup(self) -> None:
        await self.memory.add(Msg("system", "rules", "system"))

    async def __call__(self, msg: Msg, ctx: SessionContext) -> Msg:
        await self.memory.add(msg)
        if msg.content == "fail":
            await self.memory.delete_by_mark("none")
            raise ValueError("as it was told")
        heard = " ".join(str(msg.content) for msg in await self.memory.get_memory())
        return Msg("assistant", heard, "assistant")


async def test_one_memory_serves_every_session() -> None:
    async with Runtime(settings_of(), app=Remembers) as rt:
        assert [msg.content async for msg in rt.invoke("a", session_id="1")] == ["rules a"]
        assert [msg.content async for msg in rt.invoke("b", session_id="2")] == ["rules b"]
        assert [msg.content async for msg in rt.invoke("c", session_id="1")] == ["rules a c"]


async def test_a_turn_that_fails_leaves_nothing_in_the_memory() -> None:
    async with Runtime(settings_of(), app=Remembers) as rt:
        [_ async for _ in rt.invoke("a", session_id="1")]
        with pytest.raises(ValueError, match="as it was told"):
            [_ async for _ in rt.invoke("fail", session_id="1")]
        assert [msg.content async for msg in rt.invoke("b", session_id="1")] == ["rules a b"]


async def test_while_a_runtime_serves_its_memory_is_changed_in_sessions_only() -> None:
    async with Runtime(settings_of(), app=Remembers) as rt:
        assert isinstance(rt.app, Remembers)
        memory = rt.app.memory
        for change in (memory.add(said("x")), memory.delete(["x"]), memory.clear(), memory.update_messages_mark("m")):
            with pytest.raises(OutsideInvocationError):
                await change
        assert await texts(memory) == ["rules"]


STEPS = st.lists(st.sampled_from(["add", "fork", "back", "delete", "mark", "unmark"]), max_size=40)


@given(steps=STEPS)
@settings(max_examples=200, deadline=None)
def test_a_history_and_its_forks_are_like_lists_and_their_copies(steps: list[str]) -> None:
    from agentscope.memory._history import History

    history, plain = History(), list[tuple[str, tuple[str, ...]]]()
    kept: list[tuple[History, list[tuple[str, tuple[str, ...]]]]] = []
    for number, step in enumerate(steps):
        if step == "add":
            history.add(said(str(number), id=str(number)).frozen(), ())
            plain.append((str(number), ()))
        elif step == "fork":
            kept.append((history.fork(), plain.copy()))
        elif step == "back" and kept:
            history, plain = kept.pop(number % len(kept))
        elif step == "delete" and plain:
            unwanted = plain[number % len(plain)][0]
            history.keep(lambda entry, unwanted=unwanted: entry[0].id != unwanted)  # type: ignore[misc]
            plain = [entry for entry in plain if entry[0] != unwanted]
        elif step in {"mark", "unmark"}:
            marks: tuple[str, ...] = ("m",) if step == "mark" else ()
            history.mark(lambda _, marks=marks: marks)  # type: ignore[misc]
            marked: list[tuple[str, tuple[str, ...]]] = [(name, marks) for name, _ in plain]
            plain = marked
        for one, same in [(history, plain), *kept]:
            assert [(msg.id, marks) for msg, marks in one] == same
            assert [one.has(name) for name, _ in same] == [True] * len(same)
            assert not one.has("never")
        if plain:
            assert (history[0][0].id, history[-1][0].id, len(history[:1])) == (plain[0][0], plain[-1][0], 1)
        with pytest.raises(IndexError):
            history[len(plain)]
