"""The models of requests: the same that check them describe them in the OpenAPI document."""

import re
from typing import Annotated, Any, Final, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    TypeAdapter,
)
from pydantic_core import CoreSchema, core_schema
from typing_extensions import TypeAliasType

from agentscope.message import (
    AudioBlock,
    ContentBlock,
    ImageBlock,
    Role,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    VideoBlock,
)
from agentscope.session import SESSION_ID_PATTERN

# Months by their lengths, and February's last day in the years that have it: a pattern that lets through what is no
# day would promise more than is accepted.
_DAY: Final = (
    r"(?:[1-9][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    r"|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    r"|(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[13579][26])00)-02-29)"
)
_CLOCK: Final = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
TIME_PATTERN: Final = rf"^{_DAY}(?:[T ]{_CLOCK}(?::[0-5][0-9](?:[.,][0-9]{{1,9}})?)?(?:Z|[+-]{_CLOCK})?)?$"
"""A day or a time in the extended format of ISO 8601, as AgentScope writes it and as RFC 3339 does."""

_TIME = re.compile(TIME_PATTERN)


def _iso8601(value: str) -> str:
    if not _TIME.fullmatch(value):
        raise ValueError("must be a time in ISO 8601")
    return value


LONGEST_SESSION_ID: Final = 256
SessionId = Annotated[str, Field(min_length=1, max_length=LONGEST_SESSION_ID, pattern=SESSION_ID_PATTERN)]

_Block = Annotated[
    TextBlock | ThinkingBlock | ImageBlock | AudioBlock | VideoBlock | ToolUseBlock | ToolResultBlock,
    Field(discriminator="type"),
]
# Checks of their own, because a block may have keys that only its vendor knows, and a message may not. Of a long list
# the first wrong block is enough: to name each of a million takes longer than all that an honest request ever does.
# They are built for the first message that has blocks: no start waits for them.
_BLOCK_KEYS = ConfigDict(extra="allow", strict=True, defer_build=True)
BLOCKS: TypeAdapter[list[ContentBlock]] = TypeAdapter(list[_Block], config=_BLOCK_KEYS)
"""Content that is not a text."""


_Output = TypeAliasType("_Output", Annotated[list[TextBlock | ImageBlock | AudioBlock | VideoBlock], FailFast()])


class _LongToolResult(ToolResultBlock):
    output: str | _Output


_LongBlock = Annotated[
    TextBlock | ThinkingBlock | ImageBlock | AudioBlock | VideoBlock | ToolUseBlock | _LongToolResult,
    Field(discriminator="type"),
]
MANY_BLOCKS: TypeAdapter[list[ContentBlock]] = TypeAdapter(Annotated[list[_LongBlock], FailFast()], config=_BLOCK_KEYS)
"""The same, up to the first wrong block."""

MOST_BLOCKS: Final = 10_000
"""Of a message, those in the outputs of tools included: to check so many takes a twentieth of a second."""


class TextOrBlocks:
    """Content that is checked by ``BLOCKS``, and described by it."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.any_schema()

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, handler(BLOCKS.core_schema)]}


class PageLimits(NamedTuple):
    """How many things a page may have at ``most``, and has when nobody says."""

    most: int
    usual: int


SESSION_PAGES: Final = PageLimits(1000, 100)
MESSAGE_PAGES: Final = PageLimits(10_000, 1000)

LONGEST_IDEMPOTENCY_KEY: Final = 256
IDEMPOTENCY_KEY_PATTERN: Final = r"^[!-~](?:[ -~]*[!-~])?$"
"""Printable ASCII: HTTP strips the blanks around a header's value."""
LARGEST_NUMBER: Final = 10**18 - 1
"""Of a line of an answer."""

# Every text of these forms is taken: a cursor that leads nowhere is another matter than one that is none.
SESSION_CURSOR_PATTERN: Final = r"^(?:0[1-9a-f]|[1-9a-f][0-9a-f])+$"
"""The bytes of a session id in hexadecimal digits."""
LONGEST_SESSION_CURSOR: Final = 2 * 4 * LONGEST_SESSION_ID
MESSAGE_CURSOR_PATTERN: Final = r"^(?:[0-9a-f]{2})*\.(?:[0-9a-f]{2})*\.[1-9][0-9]{0,8}\.[0-9a-f]{16}$"
"""A place in a conversation: a module, a path in its state, a position, and a digest of the item before it."""


class MessageBody(BaseModel):
    """A message to the app."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(description="who says it")
    role: Role
    content: Annotated[Any, TextOrBlocks()] = Field(
        description="what is said; a block may have more keys, as its vendor wants them"
    )
    id: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        None, description="what tells the message from others; made when it is left out"
    )
    metadata: dict[str, Any] | None = Field(None, description="whatever belongs to the message")
    timestamp: (
        Annotated[str, Field(max_length=64, json_schema_extra={"pattern": TIME_PATTERN}), AfterValidator(_iso8601)]
        | None
    ) = Field(None, description="when it was said, in ISO 8601; the present when it is left out")


class InvokeBody(BaseModel):
    """What an app is invoked with. Other fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)

    session_id: SessionId = Field(description="the conversation that the message belongs to; no control characters")
    message: MessageBody = Field(description="what the app is told")
    # Made anew each time: a default pydantic would copy, deeply, for each request.
    metadata: dict[str, Any] = Field(
        default_factory=dict[str, Any],
        description="reaches the app as `ctx.metadata`",
        json_schema_extra={"default": {}},
    )
