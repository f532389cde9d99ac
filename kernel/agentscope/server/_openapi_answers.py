"""What the server answers, for the OpenAPI document. Imported when that is asked for, and not before."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from agentscope.message import Role
from agentscope.server._openapi_errors import CODES
from agentscope.server._schemas import SessionId, TextOrBlocks

_Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
_Count = Annotated[int, Field(ge=0)]
_Cursor = Annotated[
    str | None, Field(description="asks for the next page; null says that there is none", examples=["7331"])
]


class Message(BaseModel):
    """What an app says, or was told."""

    id: str = Field(description="what tells the message from others")
    name: str = Field(description="who says it")
    role: Role
    content: Annotated[Any, TextOrBlocks()] = Field(description="a text, or a list of content blocks")
    metadata: dict[str, Any]
    timestamp: str = Field(description="when it was said, in ISO 8601")


class Usage(BaseModel):
    """The tokens that the model calls of an invocation used."""

    input_tokens: _Count
    output_tokens: _Count


class Completed(BaseModel):
    """What is said of an answer that is complete."""

    done: Literal[True]
    usage: Usage


class CompletedTrailer(BaseModel):
    """The last line of an answer that is complete."""

    metadata: Completed


class Problem(BaseModel):
    """What is wrong with one field, parameter or header."""

    path: str = Field(description="where it is: `message.content[0].text`; empty for the body as a whole")
    message: str


class Error(BaseModel):
    """Why a request failed."""

    code: str = Field(json_schema_extra={"enum": list[Any](CODES)})
    message: str = Field(description="what is wrong, for a developer to read")
    request_id: str = Field(description="the log has more under this id")
    details: list[Problem] = Field([], description="each field that is not valid; left out when there is none")


class ErrorBody(BaseModel):
    """The body of every answer that is neither 2xx nor an answer of `/ready`."""

    error: Error


class Failed(BaseModel):
    """What is said of an answer that failed after it had begun."""

    done: Literal[True]
    error: Literal[True]


class FailedTrailer(BaseModel):
    """The last line of an answer that failed after it had begun."""

    error: Error
    metadata: Failed


class Answer(BaseModel):
    """An answer as one document."""

    messages: list[Message]
    metadata: Completed


class Session(BaseModel):
    """What is stored of a session."""

    session_id: SessionId
    created_at: _Time
    updated_at: _Time
    version: _Count = Field(description="how many times it was saved")
    size_bytes: _Count = Field(description="the size of its stored state")


class SessionWithModules(Session):
    """What is stored of a session, with the names of its state modules."""

    modules: list[str]


class SessionPage(BaseModel):
    """Sessions in the order of their ids."""

    sessions: list[Session]
    next_cursor: _Cursor


class ConversationPage(BaseModel):
    """Messages in the order in which they were said."""

    messages: list[Message]
    next_cursor: _Cursor


class Cancelling(BaseModel):
    """The session whose invocation ends."""

    session_id: SessionId


class Health(BaseModel):
    """That the process is alive."""

    status: Literal["healthy"]
    instance_id: str
    uptime: float = Field(ge=0, description="seconds since the start")
    version: str = Field(description="of agentscope-kernel")


class Readiness(BaseModel):
    """Whether requests should come, and the state of what the server depends on, by its name."""

    status: str = Field(description="`ready`, `not_ready`, or what the server does instead, such as `draining`")
    dependencies: dict[str, str]
    reload_error: str | None = Field(
        None, description="why the last reload left the old version serving; left out when it did not"
    )


ANSWERS: tuple[type[BaseModel], ...] = (
    Message,
    CompletedTrailer,
    FailedTrailer,
    ErrorBody,
    Answer,
    SessionPage,
    SessionWithModules,
    ConversationPage,
    Cancelling,
    Health,
    Readiness,
)
