"""Hooks: functions of the user's that run before and after what an agent does."""

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from inspect import isawaitable, signature
from typing import Any, ClassVar, Final, Self, cast

from agentscope.message import Msg
from agentscope.module import SessionLocal, StateModule

Hook = Callable[..., Any]
"""Before: ``hook(agent, kwargs)`` gives other arguments, or None to leave them. After: ``hook(agent, kwargs, output)``
gives another output, or None to leave it. Either may be a coroutine function."""

_Table = dict[str, dict[str, Hook]]


class _Hooks(dict[str, Mapping[str, Hook]]):
    # Replaced, never changed: every session, and every copy of the module, can have the same one.
    def fork(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


_NONE: Final[Mapping[str, Mapping[str, Hook]]] = _Hooks()


class Hooked(StateModule):
    """A module some of whose methods have hooks.

    ``_hooked_methods`` maps the word in a hook's type, as in ``pre_reply``, to the method's name. A hook of one object
    belongs to the session in which it was registered, or to all when that was outside any.
    """

    _hooked_methods: ClassVar[Mapping[str, str]] = {}
    _class_hooks: ClassVar[_Table] = {}
    _class_hook_tables: ClassVar[tuple[_Table, ...]] = ()
    _instance_hooks: SessionLocal[Mapping[str, Mapping[str, Hook]]] = SessionLocal()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._class_hooks = {}
        cls._class_hook_tables = tuple(
            vars(base)["_class_hooks"] for base in cls.__mro__ if "_class_hooks" in vars(base)
        )
        for kind, name in cls._hooked_methods.items():
            if name in vars(cls):
                setattr(cls, name, cls._with_hooks(kind, name, vars(cls)[name]))

    def __init__(self) -> None:
        super().__init__()
        self._instance_hooks = _NONE

    def register_instance_hook(self, hook_type: str, hook_name: str, hook: Hook) -> None:
        """Run a hook for this object. ``hook_type`` is for example ``pre_reply``; a name that is there is replaced."""
        self._check(hook_type)
        if not callable(hook):
            raise TypeError(f"a hook is a function, not a {type(hook).__name__}")
        there = self._instance_hooks
        named = {**there.get(hook_type, {}), hook_name: hook}
        self._instance_hooks = _Hooks({**there, hook_type: named})

    def remove_instance_hook(self, hook_type: str, hook_name: str) -> None:
        """Undo ``register_instance_hook``. Raises ``ValueError`` when there is no such hook."""
        self._check(hook_type)
        there = self._instance_hooks
        if hook_name not in there.get(hook_type, {}):
            raise ValueError(f"{type(self).__name__} has no {hook_type} hook named {hook_name!r}")
        named = {name: hook for name, hook in there[hook_type].items() if name != hook_name}
        self._instance_hooks = _Hooks({**there, hook_type: named})

    def clear_instance_hooks(self, hook_type: str | None = None) -> None:
        """Remove the object's hooks of a type, or all of them."""
        if hook_type is not None:
            self._check(hook_type)
        kept = {kind: hooks for kind, hooks in self._instance_hooks.items() if hook_type not in (None, kind)}
        self._instance_hooks = _Hooks(kept)

    @classmethod
    def register_class_hook(cls, hook_type: str, hook_name: str, hook: Hook) -> None:
        """Run a hook for every object of this class and of those derived from it, in the whole process."""
        cls._check(hook_type)
        cls._class_hooks.setdefault(hook_type, {})[hook_name] = hook

    @classmethod
    def remove_class_hook(cls, hook_type: str, hook_name: str) -> None:
        """Undo ``register_class_hook``. Raises ``ValueError`` when this class has no such hook."""
        cls._check(hook_type)
        if cls._class_hooks.get(hook_type, {}).pop(hook_name, None) is None:
            raise ValueError(f"{cls.__name__} has no {hook_type} hook named {hook_name!r}")

    @classmethod
    def clear_class_hooks(cls, hook_type: str | None = None) -> None:
        """Remove the hooks of this class of a type, or all of them."""
        if hook_type is None:
            cls._class_hooks.clear()
        else:
            cls._check(hook_type)
            cls._class_hooks.pop(hook_type, None)

    @classmethod
    def _check(cls, hook_type: str) -> None:
        when, _, kind = hook_type.partition("_")
        if when not in {"pre", "post"} or kind not in cls._hooked_methods:
            known = ", ".join(f"pre_{kind}, post_{kind}" for kind in cls._hooked_methods)
            raise ValueError(f"{cls.__name__} has no hooks of type {hook_type!r} (there are: {known})")

    def _hooks_of(self, hook_type: str) -> list[Hook]:
        hooks = list(self._instance_hooks.get(hook_type, {}).values())
        for table in self._class_hook_tables:
            hooks.extend(table.get(hook_type, {}).values())
        return hooks

    @staticmethod
    def _with_hooks(kind: str, name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        parameters = signature(method)

        @wraps(method)
        async def with_hooks(self: Hooked, *args: Any, **kwargs: Any) -> Any:
            if not self._instance_hooks and not any(self._class_hook_tables):
                return await method(self, *args, **kwargs)
            if getattr(type(self), name) is not with_hooks:
                # A subclass calls its base's method: the hooks run around its own.
                return await method(self, *args, **kwargs)
            bound = parameters.bind(self, *args, **kwargs)
            bound.apply_defaults()
            given: dict[str, Any] = {key: value for key, value in bound.arguments.items() if key != "self"}
            for hook in self._hooks_of(f"pre_{kind}"):
                changed = await _result(hook(self, {key: _own(value) for key, value in given.items()}))
                if changed is not None:
                    given = cast("dict[str, Any]", changed)
            bound.arguments.update(given)
            output = await method(*bound.args, **bound.kwargs)
            for hook in self._hooks_of(f"post_{kind}"):
                arguments = {key: _own(value) for key, value in given.items()}
                changed = await _result(hook(self, arguments, _own(output)))
                output = output if changed is None else changed
            return output

        return with_hooks


def _own(value: object) -> Any:
    # What a hook changes in place, and does not return, has no effect: v1 gives it copies as well.
    if isinstance(value, Msg):
        return value.copied()
    kind = type(value)
    if kind is list:
        return [_own(item) for item in cast("list[object]", value)]
    return dict(cast("dict[str, Any]", value)) if kind is dict else value


async def _result(value: Any) -> Any:
    return await value if isawaitable(value) else value
