"""``isinstance`` for values of any kind: what is inside is any value, not an unknown one."""

from collections.abc import AsyncIterator, Generator, Mapping
from typing import Any, TypeGuard


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Whether it is a list."""
    return isinstance(value, list)


def is_mapping(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether it maps; the keys are strings in what JSON can hold."""
    return isinstance(value, Mapping)


def is_generator(value: object) -> TypeGuard[Generator[Any, Any, Any]]:
    """Whether it is a plain generator."""
    return isinstance(value, Generator)


def is_async_iterator(value: object) -> TypeGuard[AsyncIterator[Any]]:
    """Whether it is read with ``async for``."""
    return isinstance(value, AsyncIterator)
