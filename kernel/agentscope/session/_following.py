"""Reading the lines of an invocation as they are kept, wherever it runs."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

from agentscope.session._invocations import InvocationStore, LinePage


async def follow_invocation(
    store: InvocationStore, invocation_id: str, after: int, patience: float
) -> AsyncGenerator[LinePage]:
    """The lines with a number greater than ``after``, as they come, to the end of the invocation.

    The last page has another state than ``running``. A page without lines that is ``running`` says that nothing came
    for ``patience`` seconds. Nothing is given for an invocation that is not kept. Raises ``SessionStoreError``.
    """
    with store.watch_invocation(invocation_id) as pause:
        attempt = 0
        now = asyncio.get_running_loop().time
        told = now()
        while (page := await store.read_lines(invocation_id, after)) is not None:
            if page.lines or page.state != "running" or now() - told >= patience:
                after += len(page.lines)
                attempt, told = 0, now()
                yield page
            if page.state != "running":
                return
            if not page.lines:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(told + patience):
                        await pause(attempt)
                attempt += 1
