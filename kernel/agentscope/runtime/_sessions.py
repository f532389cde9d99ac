"""A project's sessions without its app: for commands and programs that look after them."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import cast

from agentscope.runtime._adapters import SESSION_BACKENDS, find_adapter
from agentscope.runtime.settings import SessionSettings
from agentscope.session import SessionRepository


def open_sessions(settings: SessionSettings, project: Path) -> AbstractAsyncContextManager[SessionRepository]:
    """The sessions of the project in the folder ``project``, in the store that ``session.backend`` names.

    The schema is checked, or brought up to date, as at the start of a server. Raises ``UserError`` for a backend that
    is not there, and when it is entered, for a store that can't be used.
    """
    adapter = find_adapter(SESSION_BACKENDS, settings.backend, "session.backend", settings, project)
    return cast("AbstractAsyncContextManager[SessionRepository]", adapter(settings, project))
