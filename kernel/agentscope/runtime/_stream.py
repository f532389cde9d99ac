"""``rt.invoke()``: an app's answer without HTTP."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from copy import copy
from types import TracebackType
from typing import Any, Protocol

from agentscope.message import Msg, new_id
from agentscope.runtime._invocation import BUFFER_BYTES, Invocation


class Begin(Protocol):
    """``Runtime.begin``, for messages as they are."""

    def __call__(
        self,
        msg: Msg,
        encode: Callable[[Msg], tuple[Msg, int]],
        *,
        session_id: str,
        request_id: str,
        metadata: dict[str, Any] | None,
        identity: Mapping[str, Any] | None,
    ) -> Awaitable[Invocation[Msg]]: ...


def _as_it_is(msg: Msg) -> tuple[Msg, int]:
    # A copy with the same id, as a line would be: the app may go on to change its own. Its real size would cost an
    # encoding: sixteen messages ahead of the reader are few enough.
    _ = msg.id  # made when it is first read: the copy has to have the same
    return copy(msg), BUFFER_BYTES // 16


class MsgStream(AsyncIterator[Msg]):
    """The messages of one invocation, as the app yields them. The invocation starts with the first one asked for.

    What the app raises is raised here, after the messages before it. A stream that is closed, or dropped, before its
    end cancels the invocation; ``async with`` also waits until it has ended.
    """

    def __init__(
        self,
        begin: Begin,
        msg: Msg,
        session_id: str,
        metadata: dict[str, Any] | None,
        identity: Mapping[str, Any] | None,
    ) -> None:
        self._begin = begin
        self._msg = msg
        self._session_id = session_id
        self._metadata = metadata
        self._identity = identity
        self._invocation: Invocation[Msg] | None = None
        self._ready: list[Msg] = []
        self._closed = False
        self._reading = False

    async def __anext__(self) -> Msg:
        if not self._ready:
            if self._closed:
                raise StopAsyncIteration
            if self._reading:
                raise RuntimeError("another task is already reading this stream")
            self._reading = True
            try:
                await self._more()
            finally:
                self._reading = False
        return self._ready.pop()

    async def aclose(self) -> None:
        """Cancel the invocation if it still runs, and wait until everything it held is closed."""
        self._closed = True
        self._ready.clear()
        if self._invocation is not None:
            await self._invocation.aclose()

    async def __aenter__(self) -> "MsgStream":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._invocation is not None:
            self._invocation.abandon()

    async def _more(self) -> None:
        try:
            if self._invocation is None:
                self._invocation = await self._begin(
                    self._msg,
                    _as_it_is,
                    session_id=self._session_id,
                    request_id=new_id(),
                    metadata=self._metadata,
                    identity=self._identity,
                )
            self._ready = await self._invocation.pump.take()
        except BaseException:
            await self.aclose()
            raise
        self._ready.reverse()
        if not self._ready:
            self._closed = True
            await self._invocation.aclose()
            if self._invocation.error is not None:
                raise self._invocation.error
            raise StopAsyncIteration
