"""What docs/state.md says about its programs is what they do."""

import re
from pathlib import Path
from typing import Any

import pytest

from agentscope.errors import InvocationClosedError, OutsideInvocationError
from agentscope.runtime import Runtime
from serving import settings

PAGE = (Path(__file__).parents[2] / "docs" / "state.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def program(number: int, comment: str = "", code: str = "") -> dict[str, Any]:
    """The names that a program of the page defines; ``code`` stands in the place of the end of a comment."""
    text = PROGRAMS[number]
    if comment:
        text, count = re.subn(rf"# .*{comment}.*", code, text)
        assert count == 1, comment
    names: dict[str, Any] = {"__name__": f"state_page_{number}"}
    exec(compile(text, "docs/state.md", "exec"), names)
    return names


async def said(rt: Runtime, session_id: str, text: str = "go") -> list[Any]:
    return [msg.content async for msg in rt.invoke(text, session_id=session_id)]


async def test_one_agent_serves_every_session() -> None:
    async with Runtime(settings(), app=program(0)["App"]) as rt:
        for session_id in ("ada", "bob", "ada"):
            await said(rt, session_id, f"{session_id}'s secret")
        for session_id, turns in (("ada", 2), ("bob", 1)):
            stored = str(dict(await rt.session.load_session_state(session_id) or {}))
            assert stored.count(f"{session_id}'s secret") == 2 * turns, "what was said, and the offline model's echo"
            assert stored.count("'s secret") == 2 * turns


def test_what_is_registered_is_saved() -> None:
    profile = program(1)["Profile"]("en")
    profile.interests.append("tea")
    assert profile.state_dict() == {"interests": ["tea"], "since": profile.since.isoformat()}


async def test_a_session_begins_where_init_and_on_startup_ended() -> None:
    async with Runtime(settings(), app=program(2)["App"]) as rt:
        answers = [(await said(rt, session_id))[0] for session_id in ("first", "first", "other", "other")]
        assert answers == ["11 6", "12 7", "11 1", "12 2"]


async def test_what_the_page_says_to_write_works() -> None:
    async with Runtime(settings(), app=program(3)["App"]) as rt:
        assert [await said(rt, session_id) for session_id in "aab"] == [["1 notes"], ["3 notes"], ["1 notes"]]


async def test_what_the_page_says_raises_does() -> None:
    plain = program(3, "run_in_executor", "await asyncio.get_running_loop().run_in_executor(None, self.read_slowly)")
    async with Runtime(settings(), app=plain["App"]) as rt:
        with pytest.raises(OutsideInvocationError):
            await said(rt, "s")
    late = program(3, "create_task", "self.late = asyncio.create_task(self.review()); return None")
    async with Runtime(settings(), app=late["App"]) as rt:
        app: Any = rt.app
        await said(rt, "s")
        with pytest.raises(InvocationClosedError):
            await app.late


async def test_a_turn_that_fails_goes_back_to_its_last_save() -> None:
    async with Runtime(settings(), app=program(4)["App"]) as rt:
        with pytest.raises(RuntimeError, match="no cake"):
            await said(rt, "s", "fail")
        assert await said(rt, "s") == ["tea, tea, cake"]
