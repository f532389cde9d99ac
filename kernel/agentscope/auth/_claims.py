"""What is known of a caller, as values that stay as they are."""

from collections.abc import Mapping
from typing import Any, TypeAlias, TypeGuard

from agentscope.message import FrozenDict, FrozenList

Claims: TypeAlias = Mapping[str, Any]
"""What an authenticator found out about a caller: ``sub`` is who it is, the others are as the issuer means them."""


def freeze_claims(claims: object) -> Claims:
    """The claims as a dictionary that can't be changed, nor what is inside it.

    Raises ``TypeError`` when it is no mapping whose keys are texts.
    """
    if not _is_mapping(claims):
        raise TypeError(f"an authenticator must return a mapping of claims, not a {type(claims).__name__}")
    return FrozenDict((_text(key), _frozen(value)) for key, value in claims.items())


def _frozen(value: object) -> object:
    if _is_mapping(value):
        return freeze_claims(value)
    if _is_sequence(value):
        return FrozenList(map(_frozen, value))
    return value


def _text(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"the name of a claim must be a text, not a {type(key).__name__}")
    return key


def _is_mapping(value: object) -> TypeGuard[Mapping[object, object]]:
    return isinstance(value, Mapping)


def _is_sequence(value: object) -> TypeGuard[list[object] | tuple[object, ...]]:
    return isinstance(value, list | tuple)
