"""Any sequence of saves leaves in a store what it leaves in a plain dictionary."""

import json
import secrets
from collections.abc import Sequence
from typing import Literal, NamedTuple

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from agentscope.errors import SessionConflictError
from agentscope.session import NEVER_SAVED, ListChange, ModuleChange, ModuleHead, Revision, SessionRepository
from storage.helpers import Module, contents, size, take


class Change(NamedTuple):
    """What a save does to one list of a module: ``part`` says from which of its positions on, of 0 to 1."""

    kind: Literal["append", "rewrite", "drop", "head"]
    module: str
    pointer: str
    part: float
    items: Sequence[str]


class Step(NamedTuple):
    """A save, and what comes before it."""

    before: Literal["nothing", "release", "delete", "expire", "move on"]
    changes: Sequence[Change]


Model = dict[str, Module]

json_texts = st.text(max_size=20).map(lambda text: json.dumps(text, ensure_ascii=False)) | st.just("1")
changes = st.builds(
    Change,
    kind=st.sampled_from(["append", "append", "rewrite", "drop", "head"]),
    module=st.sampled_from(["memory", "plan"]),
    pointer=st.sampled_from(["/content", "/a~1b/0"]),
    part=st.floats(0, 1),
    items=st.lists(json_texts, max_size=4),
)
steps = st.builds(
    Step,
    before=st.sampled_from(["nothing", "nothing", "release", "delete", "expire", "move on"]),
    # One change for each list, as a save has.
    changes=st.lists(changes, max_size=4, unique_by=lambda change: (change.module, change.pointer)),
)


def applied(model: Model, step: Step) -> tuple[Model, dict[str, ModuleChange]]:
    """The model after a save, and the save."""
    after = {name: Module(module.state, dict(module.lists)) for name, module in model.items()}
    saved: dict[str, dict[str, ListChange]] = {}
    heads: dict[str, str] = {}
    for change in step.changes:
        module = after.get(change.module)
        if module is None:
            module = after[change.module] = Module("{}", {})
            heads[change.module] = "{}"
        stored = list(module.lists.get(change.pointer, ()))
        lists = dict(module.lists)
        if change.kind == "head":
            heads[change.module] = json.dumps(list(change.items))
        else:
            if change.kind != "append" or change.pointer not in lists:
                heads.setdefault(change.module, module.state)
            start = {"append": len(stored), "rewrite": round(change.part * len(stored)), "drop": 0}[change.kind]
            new = [] if change.kind == "drop" else list(change.items)
            lists[change.pointer] = [*stored[:start], *new]
            if change.kind == "drop":
                del lists[change.pointer]
            part = ListChange(start, new, rewrites=change.kind != "append")
            saved.setdefault(change.module, {})[change.pointer] = part
        after[change.module] = Module(heads.get(change.module, module.state), lists)
    return after, {
        name: ModuleChange(
            ModuleHead(heads[name], dict.fromkeys(after[name].lists, 1)) if name in heads else None,
            saved.get(name, {}),
        )
        for name in {**heads, **saved}
    }


@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, max_size=8))
async def test_any_sequence_of_saves_leaves_what_it_should(repository: SessionRepository, steps: list[Step]) -> None:
    # The store is that of all examples: each has a session of its own.
    session_id = secrets.token_hex(8)
    model: Model | None = None
    lease = await take(repository, session_id)
    expected = NEVER_SAVED
    for step in steps:
        is_lost = step.before == "expire"
        if step.before == "release":
            await repository.release_leases([lease.claim])
            lease = await take(repository, session_id)
            assert lease.revision == expected
        elif step.before == "delete":
            assert await repository.delete(lease) == (model is not None)
            model, expected = None, NEVER_SAVED
        elif is_lost:
            await repository.renew_leases([lease.claim], 0)
        after, saved = applied(model or {}, step)
        stale = Revision(expected.version + 1, lease.fence) if step.before == "move on" else expected
        if is_lost or stale != expected:
            with pytest.raises(SessionConflictError):
                await repository.save(lease, saved, expected=stale)
        else:
            revision = await repository.save(lease, saved, expected=expected)
            assert revision == (
                expected if not saved and model is not None else Revision(expected.version + 1, lease.fence)
            )
            model, expected = after, revision
        if is_lost:
            lease = await take(repository, session_id)
            assert lease.revision == expected

        assert await contents(repository, session_id) == model
        stored = await repository.load(session_id, [])
        assert (None if stored is None else stored.summary.size_bytes) == (None if model is None else size(model))
