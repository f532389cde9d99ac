"""Exchanges with real models, recorded to a file once and replayed from it ever after."""

import asyncio
import difflib
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

from agentscope.errors import AgentScopeError, UnknownNameError, UserError
from agentscope.message import Msg
from agentscope.model import ChatChunk, ChatModel, ChatModelBase, ToolChoice, ToolSchema
from agentscope.runtime import AgentApp, Runtime
from agentscope.testing._exchange import Request, Secrets, answer_of, chunks_of, request_of, written
from agentscope.testing._run import project_runtime

_FORMAT: Final = "agentscope_recording"
_VERSION: Final = 1
_SHOWN_LINES: Final = 40


class NotRecordedError(AgentScopeError, AssertionError):
    """A model was asked what its recording does not hold. ``slot`` is the model's."""

    def __init__(self, slot: str, message: str) -> None:
        super().__init__(message)
        self.slot = slot


class RecordedModels(Mapping[str, ChatModel]):
    """The models of a project by slot. They say what the file holds; while recording, what the real ones say.

    A call is found again by what it asks: messages, tools and options, not their ids and times. Calls that ask the
    same get their answers in the order of the recording. ``problems`` says what could not be answered or recorded.
    """

    def __init__(
        self, file: Path, slots: Sequence[str], secrets: Secrets, real: Mapping[str, ChatModel], how: str
    ) -> None:
        self.file = file
        self.problems: list[str] = []
        self._secrets = secrets
        self._how = how
        self._exchanges: list[dict[str, Any]] = []
        self._models = {slot: _RecordedModel(slot, self, secrets, real.get(slot)) for slot in slots}

    def __getitem__(self, slot: str) -> ChatModel:
        try:
            return self._models[slot]
        except KeyError:
            raise UnknownNameError("model slot", slot, self._models) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def read(self) -> None:
        """Read the file; one that is not there holds nothing. Raises ``UserError`` for one that is no recording."""
        if not self.file.is_file():
            return
        try:
            recorded = json.loads(self.file.read_text(encoding="utf-8"))
            version, exchanges = recorded[_FORMAT], recorded["exchanges"]
            self._exchanges = [{part: one[part] for part in ("slot", "request", "answer")} for one in exchanges]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.file} is no recording: {error!r}; delete it, and {self._how}") from error
        if version != _VERSION:
            raise UserError(f"{self.file} is of version {version!r}, and this one reads {_VERSION}: {self._how}")

    def require_place(self) -> None:
        """Make the file's folder. Raises ``UserError`` when nothing can be written there."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.file.parent} can't be made, so nothing can be recorded: {error}") from error
        if not os.access(self.file.parent, os.W_OK):
            raise UserError(f"nothing can be recorded in {self.file.parent}: it can't be written to")

    def write(self) -> None:
        """Write what was recorded, in the place of what the file held. Nothing is written after a problem."""
        if not self._exchanges or self.problems:
            return
        draft = self.file.with_name(f"{self.file.name}.new")
        draft.write_text(written({_FORMAT: _VERSION, "exchanges": self._exchanges}) + "\n", encoding="utf-8")
        draft.replace(self.file)

    def keep(self, slot: str, request: Request, chunks: Sequence[ChatChunk]) -> None:
        """An exchange with a real model is over."""
        answer = answer_of(chunks, self._secrets)
        self._exchanges.append({"slot": slot, "request": request, "answer": answer})

    def failed(self, slot: str, error: Exception) -> None:
        """A real model failed: a recording without its answer would replay something else."""
        self.problems.append(f"nothing was written to {self.file}: the model of the slot {slot!r} failed: {error}")

    def replay(self, slot: str, request: Request) -> Sequence[ChatChunk]:
        """The recorded answer. Raises ``NotRecordedError`` when there is none, or none that is left."""
        asked = {"slot": slot, "request": request}
        for index, exchange in enumerate(self._exchanges):
            if {"slot": exchange["slot"], "request": exchange["request"]} == asked:
                return chunks_of(self._exchanges.pop(index)["answer"])
        problem = self._explained(slot, asked)
        self.problems.append(problem)
        raise NotRecordedError(slot, problem)

    def _explained(self, slot: str, asked: Mapping[str, Any]) -> str:
        said = f"the model of the slot {slot!r} was asked what {self.file} does not hold"
        others = [written(exchange["request"]) for exchange in self._exchanges if exchange["slot"] == slot]
        new = written(asked["request"])
        if others:
            lines = new.splitlines()
            closest = max(others, key=lambda other: difflib.SequenceMatcher(None, other.splitlines(), lines).ratio())
            difference = difflib.unified_diff(closest.splitlines(), lines, "recorded", "asked now", n=2, lineterm="")
            said += ":\n" + _cut(difference)
        else:
            said += " (any more):\n" + _cut(iter(new.splitlines()))
        return f"{said}\nif that is as it should be, {self._how}"


class _RecordedModel(ChatModelBase):
    def __init__(self, slot: str, recording: RecordedModels, secrets: Secrets, real: ChatModel | None) -> None:
        self._slot = slot
        self._recording = recording
        self._secrets = secrets
        self._real = real

    async def stream(
        self,
        messages: Sequence[Msg],
        *,
        tools: Sequence[ToolSchema] | None = None,
        tool_choice: ToolChoice | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatChunk]:
        """See ``ChatModel.stream``."""
        request = request_of(messages, tools, tool_choice, kwargs, self._secrets)
        if self._real is None:
            for chunk in self._recording.replay(self._slot, request):
                yield chunk
            return
        chunks: list[ChatChunk] = []
        answer = self._real.stream(messages, tools=tools, tool_choice=tool_choice, **kwargs)
        try:
            async with aclosing(cast("AsyncGenerator[ChatChunk]", answer)):
                async for chunk in answer:
                    chunks.append(chunk)
                    yield chunk
        except Exception as error:
            self._recording.failed(self._slot, error)
            raise
        except BaseException:
            # Its reader had enough: so will it have in the replay.
            self._recording.keep(self._slot, request, chunks)
            raise
        self._recording.keep(self._slot, request, chunks)


@asynccontextmanager
async def recorded(
    app: Path | str | Runtime, file: Path | str, *, record: bool = False, how: str = "record it with record=True"
) -> AsyncGenerator[RecordedModels]:
    """The models of a project by slot, which say what ``file`` holds.

    ``app`` is the project's folder, or its runtime. With ``record`` the real models answer, and at the end of the
    block the file is written: what was asked and said, without ids, times, headers and the settings' secrets. When one
    of them fails, the file stays as it is. ``how`` says how to record again, for the errors.

    Raises ``UserError`` for a file that is no recording or can't be written, and for mistakes in the project.
    """
    runtime = app if isinstance(app, Runtime) else await asyncio.to_thread(project_runtime, app)
    settings = runtime.settings
    async with AsyncExitStack() as stack:
        real: dict[str, ChatModel] = {}
        if record:
            real = await asyncio.to_thread(_real_models, runtime)
            for model in real.values():
                if hasattr(model, "aclose"):
                    stack.push_async_callback(cast("ChatModelBase", model).aclose)
        models = RecordedModels(Path(file), list(settings.models), Secrets(settings), real, how)
        # Before anybody is asked: real answers cost.
        await asyncio.to_thread(models.require_place if record else models.read)
        yield models
        if record:
            await asyncio.to_thread(models.write)


def _real_models(runtime: Runtime) -> dict[str, ChatModel]:
    # A runtime of their own, which is never started: what stands in the place of the other's is not theirs.
    vendors = Runtime(runtime.settings, project=runtime.project, app=AgentApp)
    return {slot: provider() for slot, provider in vendors.container.models.providers.items()}


def _cut(lines: Iterator[str]) -> str:
    shown = [f"  {line}" for line in lines]
    rest = len(shown) - _SHOWN_LINES
    return "\n".join(shown[:_SHOWN_LINES] + ([f"  … and {rest} lines more"] if rest > 0 else []))
