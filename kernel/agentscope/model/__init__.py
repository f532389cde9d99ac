"""The port through which everything talks to a chat model, and what comes back through it."""

from agentscope.model._chat import ChatChunk, ChatResponse, ChatUsage, ResponseBuilder, StopReason, collect
from agentscope.model._errors import (
    ModelAuthenticationError,
    ModelBadRequestError,
    ModelConnectionError,
    ModelError,
    ModelOverloadedError,
    ModelRateLimitError,
    ModelTimeoutError,
)
from agentscope.model._port import ChatModel, ChatModelBase, ToolChoice, ToolSchema

__all__ = [
    "ChatChunk",
    "ChatModel",
    "ChatModelBase",
    "ChatResponse",
    "ChatUsage",
    "ModelAuthenticationError",
    "ModelBadRequestError",
    "ModelConnectionError",
    "ModelError",
    "ModelOverloadedError",
    "ModelRateLimitError",
    "ModelTimeoutError",
    "ResponseBuilder",
    "StopReason",
    "ToolChoice",
    "ToolSchema",
    "collect",
]
