"""The platform over HTTP: heartbeats, and after each a question whether there is something to do."""

import asyncio
import logging
import random
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from contextvars import Context
from types import MappingProxyType
from typing import Final, get_args

from agentscope.platform import Action, Heartbeat, Instance, Platform, PlatformState
from agentscope.runtime.settings import PlatformSettings
from agentscope_adapters.platform._client import PlatformClient
from agentscope_adapters.platform._pauses import Timing, after_failure, until_next
from agentscope_adapters.platform._wire import PlatformFailedError, read_action, write_heartbeat

_log = logging.getLogger("agentscope.platform")

_ACTIONS: Final[Mapping[str, Action]] = MappingProxyType({action: action for action in get_args(Action)})
_MOST_UNKNOWN: Final = 16
_WORD: Final = re.compile(r"[a-z_-]{1,20}", re.IGNORECASE)


@asynccontextmanager
async def open_platform(
    settings: PlatformSettings, instance: Instance, *, timing: Timing | None = None
) -> AsyncGenerator[Platform]:
    """Tell the platform of the instance, and the instance what the platform asks for, until this is left.

    Entering waits for no answer, leaving a second at most for that to the last heartbeat. Raises ``UserError`` when
    the environment names a proxy that can't be used.
    """
    timing = timing or Timing()
    async with PlatformClient.open(settings, timing.answer) as client:
        platform = _HttpPlatform(client, instance, settings.heartbeat_interval, timing)
        # What it is now: the answer to this may come when it is something else. The tasks are the kernel's own and
        # belong to no request, so their context is empty.
        speaking = asyncio.create_task(platform.speak(instance.heartbeat()), name="platform", context=Context())
        try:
            yield platform
        finally:
            speaking.cancel()
            await asyncio.wait([speaking])
            await asyncio.create_task(platform.say_goodbye(), name="platform: last heartbeat", context=Context())


class _HttpPlatform:
    def __init__(self, client: PlatformClient, instance: Instance, interval: float, timing: Timing) -> None:
        self._client = client
        self._instance = instance
        self._interval = interval
        self._timing = timing
        self._state: PlatformState = "up"
        self._failures = 0
        self._unknown: set[str] = set()

    @property
    def state(self) -> PlatformState:
        """See ``Platform.state``."""
        return self._state

    async def speak(self, first: Heartbeat) -> None:
        """Send this heartbeat now, and then one after the other."""
        heartbeat: Heartbeat | None = first
        while True:
            pause = await self._turn(heartbeat)
            heartbeat = None
            await asyncio.sleep(pause)

    async def say_goodbye(self) -> None:
        """Send the last heartbeat, if the platform takes it soon."""
        seconds = self._timing.farewell
        try:
            async with asyncio.timeout(seconds):
                await self._client.send(write_heartbeat(self._instance.heartbeat()))
        except (TimeoutError, PlatformFailedError) as error:
            reason = f"no answer within {seconds:g} seconds" if isinstance(error, TimeoutError) else str(error)
            # Of a platform that fails already there was a warning.
            level = logging.WARNING if self._state == "up" else logging.DEBUG
            _log.log(level, "the platform %s was not told of the end: %s", self._client.label, reason)
        except Exception:
            # A boundary: everything else has closed.
            _log.exception("the platform %s was not told of the end", self._client.label)

    async def _turn(self, heartbeat: Heartbeat | None) -> float:
        """Send a heartbeat, by default that of now, and do what is asked for; return seconds until the next."""
        now = asyncio.get_running_loop().time
        began = now()
        retry_after: float | None = None
        try:
            await self._client.send(write_heartbeat(heartbeat or self._instance.heartbeat()))
            action = read_action(await self._client.configuration())
            self._has_answered()
            self._obey(action)
        except PlatformFailedError as failure:
            self._has_failed(failure)
            retry_after = failure.retry_after
        except Exception:
            # A boundary: nobody looks after the task. Errors of the client, which hold the token, do not come here.
            _log.exception("speaking to the platform failed")
        else:
            self._failures = 0
            return began + until_next(self._interval, random.random) - now()
        self._failures += 1
        return after_failure(self._failures, self._interval, self._timing, random.random, retry_after=retry_after)

    def _has_failed(self, failure: PlatformFailedError) -> None:
        if self._state == "up":
            self._state = "down"
            _log.warning("the platform %s fails: %s; it is asked again until it is back", self._client.label, failure)
        else:
            _log.debug("the platform %s still fails: %s", self._client.label, failure)

    def _has_answered(self) -> None:
        if self._state == "down":
            self._state = "up"
            _log.info("the platform %s is back", self._client.label)

    def _obey(self, action: str | None) -> None:
        if action is None:
            return
        known = _ACTIONS.get(action)
        if known is not None:
            self._instance.act(known)
            return
        # Not whatever it says: that could be the token which it was sent.
        shown = repr(action) if _WORD.fullmatch(action) else "something that is no word"
        # What is asked for once is asked for every time, and what is asked for may be a different nonsense every time.
        if shown not in self._unknown and len(self._unknown) < _MOST_UNKNOWN:
            self._unknown.add(shown)
            _log.warning("the platform %s asks for %s, which this version does not know", self._client.label, shown)
