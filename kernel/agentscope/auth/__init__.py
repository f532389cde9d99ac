"""Who calls: the port of authenticators, and what they have in common."""

from agentscope.auth._bearer import bearer_token
from agentscope.auth._claims import Claims, freeze_claims
from agentscope.auth._port import Authenticator
from agentscope.auth._tokens import SHORTEST_TOKEN, StaticToken, distinct_tokens

__all__ = [
    "SHORTEST_TOKEN",
    "Authenticator",
    "Claims",
    "StaticToken",
    "bearer_token",
    "distinct_tokens",
    "freeze_claims",
]
