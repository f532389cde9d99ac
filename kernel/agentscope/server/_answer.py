"""What an invocation answers: its lines and its trailer, kept while they are read when they are to be read again."""

from typing import Any, Final

import orjson

from agentscope.errors import InvocationCancelledError
from agentscope.runtime import Bell, Invocation
from agentscope.server._errors import ApiError, app_failure
from agentscope.session import Recorder, Recording

_TO_TRY_AGAIN: Final = frozenset({404, 409, 429, 503})
"""Statuses of a failure that is not the turn's own. When nothing came before it, the request may be sent again."""


class Answer:
    """The answer of a running invocation, for its one reader.

    ``recording`` takes what is read, None when nothing is kept.
    """

    def __init__(self, invocation: Invocation[bytes], recording: Recording | None = None) -> None:
        self.invocation = invocation
        self.taken = 0
        """How many lines were read."""
        self.closed = False
        """Whether the last line was read: nothing more comes but the trailer."""
        self._recording = recording
        self._failure: ApiError | None = None
        self._trailer: bytes | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to be done: its invocation has ended, and what is kept of it is."""
        return self.closed and (self._recording is None or self._trailer is not None)

    @property
    def is_numbered(self) -> bool:
        """Whether its lines can be asked for again, by their number."""
        return self._recording is not None

    async def take(self, bell: Bell | None = None) -> list[bytes]:
        """The lines that wait, as ``Pump.take`` gives them."""
        pump = self.invocation.pump
        lines = await pump.take(bell)
        # As of now: what comes while the lines are kept is for the next one who takes.
        closed = pump.closed
        self.taken += len(lines)
        if lines and self._recording is not None:
            await self._recording.add([line.decode() for line in lines])
        self.closed = closed
        return lines

    @property
    def failure(self) -> ApiError | None:
        """What its client is told when the invocation failed; None while it runs and when all went well."""
        error = self.invocation.error
        if self._failure is None and error is not None:
            invocation = self.invocation
            # Its own context, in which the log would find them, is over.
            about = {"session_id": invocation.session_id, "invocation_id": invocation.invocation_id}
            debug = invocation.runtime.settings.server.debug
            self._failure = app_failure(error, invocation.request_id, debug=debug, about=about)
        return self._failure

    @property
    def metadata(self) -> dict[str, Any]:
        """What the trailer says of an invocation that went well."""
        usage = self.invocation.usage
        return {"done": True, "usage": {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}}

    @property
    def trailer(self) -> bytes:
        """The last line. Ask for it once the answer is closed."""
        if self._trailer is None:
            failure = self.failure
            if failure is None:
                trailer: dict[str, Any] = {"metadata": self.metadata}
            else:
                trailer = failed_trailer(failure, self.invocation.request_id)
            self._trailer = orjson.dumps(trailer)
            if self._recording is not None:
                self._recording.end(self._trailer.decode())
        return self._trailer

    async def finish(self, recorder: Recorder | None = None) -> None:
        """Read what nobody reads, to the end, so that it is kept."""
        while not self.closed:
            await self.take()
        if self._recording is None:
            return
        if recorder is not None and self._has_done_nothing():
            # Its key is free: the session is as it was before.
            await recorder.discard(self._recording)
        else:
            _ = self.trailer

    def _has_done_nothing(self) -> bool:
        failure = self.failure
        if failure is None or self.taken or self.invocation.has_saved:
            return False
        by_request = isinstance(self.invocation.error, InvocationCancelledError) and self.invocation.error.by_request
        return failure.status in _TO_TRY_AGAIN and not by_request

    async def aclose(self, recorder: Recorder | None = None) -> None:
        """Cancel the invocation if it still runs; return when its session is free."""
        await self.invocation.aclose()
        await self.finish(recorder)


def failed_trailer(failure: ApiError, request_id: str) -> dict[str, Any]:
    """The trailer of an invocation that failed."""
    return {"error": failure.body(request_id), "metadata": {"done": True, "error": True}}
