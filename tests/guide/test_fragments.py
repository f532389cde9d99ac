"""The guide's fragments: their text unchanged, after its own imports, with what they only mention in a subclass."""

from pathlib import Path
from typing import Any

import pytest

from agentscope.message import Msg
from agentscope.model import ModelBadRequestError
from agentscope.runtime import Runtime
from agentscope.runtime.settings import Settings
from agentscope.testing import ScriptedModel
from guide.text import block, imports

AGENT = '''

class Fragment(App):
    """What the guide's fragment takes for granted."""

    def __init__(self):
        self.new_sessions = []
        self.agent = self

    def init_new_session(self, session_id):
        self.new_sessions.append(session_id)

    async def stream(self, msg):
        async for chunk in runtime.models.main.stream([msg]):
            yield Msg(name="assistant", content=chunk.text, role="assistant")
'''


def fragment(folder: Path, heading: str) -> Runtime:
    """A runtime of the fragment under that heading."""
    (folder / "app.py").write_text(f"{imports()}\n\n{block(heading, 'python')}{AGENT}")
    settings = Settings.model_validate(
        {"app": "app:Fragment", "models": {"main": {"provider": "offline"}}, "session": {"backend": "memory"}}
    )
    return Runtime(settings, project=folder)


async def answer(rt: Runtime, session_id: str = "s1", **options: Any) -> list[Msg]:
    return [msg async for msg in rt.invoke("hi", session_id=session_id, **options)]


class State:
    """Some state to save."""

    def state_dict(self) -> dict[str, int]:
        """One number."""
        return {"turns": 1}

    def load_state_dict(self, state: object, /) -> None:
        """Nothing to take over."""


async def test_a_new_session_is_told_from_a_known_one(tmp_path: Path) -> None:
    async with fragment(tmp_path, "### 手动管理 Session") as rt:
        app: Any = rt.app
        assert await answer(rt, "new") == []
        assert app.new_sessions == ["new"]
        await rt.session.save_session_state("known", memory=State())
        assert await answer(rt, "known") == []
        assert app.new_sessions == ["new"]


async def test_an_error_of_the_model_becomes_a_message(tmp_path: Path) -> None:
    async with fragment(tmp_path, "## 错误处理") as rt:
        with rt.override(models={"main": ScriptedModel(ModelBadRequestError("main", "too long"))}):
            (message,) = await answer(rt)
        assert (message.name, message.role) == ("system", "assistant")
        assert message.content == "Error: model 'main': the vendor refused the request: too long"
        assert message.metadata == {"error": True}


async def test_an_answer_without_an_error_passes_through(tmp_path: Path) -> None:
    async with fragment(tmp_path, "## 错误处理") as rt:
        assert "".join(str(message.content) for message in await answer(rt)) == "hi"


async def test_the_model_is_warmed_up_before_the_first_request(tmp_path: Path) -> None:
    model = ScriptedModel("warm")
    rt = fragment(tmp_path, "## 生命周期钩子")
    with rt.override(models={"main": model}):
        async with rt:
            (call,) = model.calls
            (warmup,) = call.messages
            assert (warmup.name, warmup.content, warmup.role) == ("system", "warmup", "system")
            assert await answer(rt) == []


@pytest.mark.parametrize("metadata", [{"tenant_id": "enterprise", "user_id": "u"}, {}], ids=["enterprise", "none"])
async def test_metadata_reaches_the_app(tmp_path: Path, metadata: dict[str, Any]) -> None:
    async with fragment(tmp_path, "## 访问 Metadata") as rt:
        assert await answer(rt, metadata=metadata) == []
