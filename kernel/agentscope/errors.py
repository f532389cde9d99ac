"""The errors a user of the kernel can meet. All of them derive from ``AgentScopeError``:

AgentScopeError
├── UserError                        the user's project or command is wrong; the text says how to mend it
│   ├── ConfigurationError           agentscope.runtime.settings: every problem found, with file and line
│   ├── ProjectError                 agentscope.runtime: no project, or an app.py that can't be loaded
│   ├── ExportFormatError            agentscope.session: a file that is no whole export of sessions
│   └── SchemaError                  the session database's schema is older or newer than this program's
├── RuntimeNotReadyError             the runtime is used before `initialize()` or after `shutdown()`
├── UnknownNameError                 a model slot or a provider that does not exist
├── GraphError                       a provider of the container can't be built
├── InvocationClosedError            something of an invocation is used after it ended
├── OutsideInvocationError           a module's state is changed outside any invocation while a runtime serves
├── StateMismatchError               a module can't load a state: a key is missing, or has another form
├── ToolError
│   ├── ToolNameError                two tools of one toolkit have the same name, or there is no such tool or group
│   ├── ToolArgumentsError           a model's arguments don't fit a tool
│   └── ToolServerError              an MCP server can't be reached, or failed during a call
├── StructuredOutputError            a model gave no output of the form that was asked for
├── UnauthorizedError                a call names no caller, or not believably
├── ForbiddenError                   the caller is known, and may not do this
├── AuthenticatorUnavailableError    who calls can't be known now
├── InvocationTimeoutError           an invocation did not end before its deadline
├── InvocationCancelledError         an invocation was ended from outside: the client left, or the server stops
├── SessionError
│   ├── SessionNotFoundError         `load_session_state(…, allow_not_exist=False)` found nothing
│   ├── SessionConflictError         the stored session is not the one that was loaded
│   ├── ConversationMovedError       agentscope.session: a conversation was rewritten while it was read in pages
│   ├── SessionBusyError             another invocation of the session did not finish in time
│   └── StateNotSerializableError    a module's state holds something that JSON can't
├── SessionStoreError                the store of sessions failed, or can't be reached
├── NetworkRefusedError              agentscope.testing: a test would have reached another machine
├── NotRecordedError                 agentscope.testing: a model was asked what its recording does not hold
├── AgentClientError                 agentscope.testing: the server answered with an error
├── OverloadedError                  every invocation slot and every waiting place is taken
└── ModelError                       agentscope.model: a vendor's failure, with the slot's name
    ├── ModelAuthenticationError
    ├── ModelRateLimitError
    ├── ModelTimeoutError
    ├── ModelOverloadedError
    ├── ModelBadRequestError
    └── ModelConnectionError
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "AgentScopeError",
    "AuthenticatorUnavailableError",
    "ForbiddenError",
    "GraphError",
    "InvocationCancelledError",
    "InvocationClosedError",
    "InvocationTimeoutError",
    "OutsideInvocationError",
    "OverloadedError",
    "ProjectError",
    "RuntimeNotReadyError",
    "SchemaError",
    "SessionBusyError",
    "SessionConflictError",
    "SessionError",
    "SessionNotFoundError",
    "SessionStoreError",
    "StateMismatchError",
    "StateNotSerializableError",
    "StructuredOutputError",
    "ToolArgumentsError",
    "ToolError",
    "ToolNameError",
    "ToolServerError",
    "UnauthorizedError",
    "UnknownNameError",
    "UserError",
]


class AgentScopeError(Exception):
    """The root of every error that the kernel and its adapters raise on purpose."""


class UserError(AgentScopeError):
    """A mistake in a project, its configuration or a command. Its text says what, where and how to fix it.

    The command line prints the text alone and exits with status 2.
    """


class ProjectError(UserError):
    """The project folder or its ``app.py`` can't be used.

    ``brief`` says it without what the app's own error says, which may hold anything.
    """

    def __init__(self, message: str, *, brief: str | None = None) -> None:
        super().__init__(message)
        self.brief = brief or message


class SchemaError(UserError):
    """The session database's schema does not fit this program.

    ``found`` is the revision in the database, None when it has no tables; ``needed`` is this program's.
    """

    def __init__(self, message: str, *, found: str | None, needed: str) -> None:
        super().__init__(message)
        self.found = found
        self.needed = needed


class RuntimeNotReadyError(AgentScopeError):
    """The runtime was used before it was initialized, after it was shut down, or while it was ambiguous."""


class UnknownNameError(AgentScopeError, AttributeError, KeyError):
    """A name that isn't there. ``name`` is what was asked for, ``known`` what there is.

    It is an ``AttributeError`` and a ``KeyError`` as well, so that ``hasattr`` and ``in`` behave.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        # AttributeError keeps `name` for itself as a keyword: set it after its own constructor ran.
        super().__init__(kind, name)
        self.kind = kind
        self.name = self._asked = name
        self.known = tuple(sorted(known))

    def __str__(self) -> str:
        there = ", ".join(self.known) or "none"
        close = get_close_matches(self._asked, self.known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return f"no {self.kind} named {self._asked!r}{hint} (there are: {there})"


class GraphError(AgentScopeError):
    """A provider of the container can't be built. ``provider`` is its name."""

    def __init__(self, provider: str, reason: str) -> None:
        super().__init__(f"provider {provider!r}: {reason}")
        self.provider = provider


class InvocationClosedError(AgentScopeError):
    """Something that belongs to an invocation was used after the invocation ended."""


class OutsideInvocationError(AgentScopeError):
    """State was changed outside any invocation while a runtime serves: every later session would start with it.

    ``what`` names the state.
    """

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} was changed outside any session while the runtime serves, which would reach every later session: "
            "change it in `__init__` or `on_startup`, or start the work inside the invocation with `ctx.spawn(coro)` "
            "or `asyncio.to_thread(…)`, which carry the session along"
        )
        self.what = what


class StateMismatchError(AgentScopeError, KeyError, ValueError):
    """A module can't load a state. ``module`` is its class's name.

    It is a ``KeyError`` and a ``ValueError`` as well, which is what AgentScope v1 raises.
    """

    def __init__(self, module: str, reason: str) -> None:
        super().__init__(module, reason)
        self.module = module
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.module} can't load this state: {self.reason}"


class ToolError(AgentScopeError):
    """Something about a tool."""


class ToolNameError(ToolError, ValueError):
    """A name of a tool or a group that is taken, or that does not exist.

    It is a ``ValueError`` as well, which is what AgentScope v1 raises.
    """


class ToolArgumentsError(ToolError):
    """The arguments that a model wrote don't fit the tool ``tool``.

    ``problems`` says for each what is wrong, with its name. The text is written for the model.
    """

    def __init__(self, tool: str, problems: Iterable[str]) -> None:
        super().__init__(tool, problems)
        self.tool = tool
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return f"invalid arguments for {self.tool}: " + "; ".join(self.problems)


class ToolServerError(ToolError):
    """The MCP server ``server`` can't be reached, does not answer in time, or went away during a call."""

    def __init__(self, server: str, reason: str) -> None:
        super().__init__(f"MCP server {server!r}: {reason}")
        self.server = server


class StructuredOutputError(AgentScopeError):
    """A model gave no output of the form that was asked for. ``reason`` is what was wrong with its last try."""

    def __init__(self, agent: str, reason: str) -> None:
        super().__init__(f"{agent} gave no valid structured output: {reason}")
        self.reason = reason


class UnauthorizedError(AgentScopeError):
    """A call names no caller, or not believably. The text is told to it: it must hold nothing of what was sent.

    ``invalid_token`` says that a token was sent. ``challenge`` is the ``WWW-Authenticate`` of the answer, by RFC 6750.
    """

    def __init__(self, message: str, *, invalid_token: bool = False) -> None:
        super().__init__(message)
        self.invalid_token = invalid_token

    @property
    def challenge(self) -> str:
        return 'Bearer error="invalid_token"' if self.invalid_token else "Bearer"


class ForbiddenError(AgentScopeError):
    """The caller is known, and may not do what it asks for. The text is told to it."""


class AuthenticatorUnavailableError(AgentScopeError):
    """Who calls can't be known now: nobody is let in. The text is for the log; it must hold no secret.

    ``retry_after`` is how many seconds to wait before another try.
    """

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class InvocationTimeoutError(AgentScopeError):
    """The invocation did not end before its deadline."""


class InvocationCancelledError(AgentScopeError):
    """The invocation was ended from outside, for example because the server stops.

    ``by_request`` says that someone asked for it: running it once more is for them to decide.
    """

    def __init__(self, message: str, *, by_request: bool = False) -> None:
        super().__init__(message)
        self.by_request = by_request


class SessionError(AgentScopeError):
    """Something about one session, whose id is ``session_id``."""

    def __init__(self, session_id: str, message: str) -> None:
        super().__init__(message)
        self.session_id = session_id


class SessionNotFoundError(SessionError):
    """The session was never saved, or is another's.

    ``is_foreign`` says that there is a session of that id, which the caller must not learn.
    """

    def __init__(self, session_id: str, *, is_foreign: bool = False) -> None:
        super().__init__(session_id, f"session {session_id!r} does not exist")
        self.is_foreign = is_foreign


class SessionConflictError(SessionError):
    """The stored session is not the one this save started from, or its lease was lost: nothing was written.

    ``expected`` is the version that was loaded, 0 for a session that did not exist, None when the session was not
    loaded; ``found`` is the stored version, None when it was deleted meanwhile or when another save is still being
    written. ``lease_lost`` says that the lease had expired, or had been taken over by another process.
    """

    def __init__(self, session_id: str, *, expected: int | None, found: int | None, lease_lost: bool = False) -> None:
        if expected is None:
            message = (
                f"session {session_id!r} exists but was not loaded here: "
                "call load_session_state(…) before save_session_state(…)"
            )
        elif lease_lost:
            message = (
                f"session {session_id!r} was let go to others: its lease was not renewed in time, because this "
                "process, its event loop or the database stood still for longer than session.lease_ttl; "
                "load it again and repeat the turn"
            )
        else:
            there = "gone" if found is None else f"version {found}"
            message = (
                f"session {session_id!r} was changed elsewhere: version {expected} was loaded, "
                f"the stored one is {there}; load it again and repeat the turn"
            )
        super().__init__(session_id, message)
        self.expected = expected
        self.found = found
        self.lease_lost = lease_lost


class SessionBusyError(SessionError):
    """Another invocation of the session is running, and this one may not wait, or not any longer."""


class StateNotSerializableError(SessionError):
    """A module's state can't be stored as JSON. ``path`` leads to the value: ``memory.content[3].metadata``."""

    def __init__(self, session_id: str, path: str, reason: str) -> None:
        super().__init__(session_id, f"session {session_id!r}: {path} can't be stored as JSON: {reason}")
        self.path = path


class SessionStoreError(AgentScopeError):
    """The store of sessions failed or can't be reached. What was not saved yet is not; try again later."""


class OverloadedError(AgentScopeError):
    """All places are taken. ``retry_after`` is how many seconds to wait before another try."""

    def __init__(self, retry_after: float = 1.0) -> None:
        super().__init__("the server is at its limit of concurrent and waiting invocations")
        self.retry_after = retry_after
