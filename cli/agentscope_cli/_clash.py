"""Another distribution that brings a package called ``agentscope`` can't share an environment with this one."""

from importlib import metadata

OURS = "agentscope-kernel"


def find_known_clash() -> str | None:
    """The message about a distribution called ``agentscope``, whose files mix with ours; None when there is none.

    Looking up one name takes a millisecond. Reading what every distribution brings takes fifty, and is left to
    ``explain_foreign_package``, when an import has already gone wrong.
    """
    try:
        foreign = metadata.distribution("agentscope")
    except metadata.PackageNotFoundError:
        return None
    return _message([f"agentscope {foreign.version}"], ["agentscope"])


def explain_foreign_package() -> str:
    """The message for an ``agentscope`` package that isn't ours: who owns it, and what to do."""
    import agentscope

    owners = [name for name in metadata.packages_distributions().get("agentscope", []) if name != OURS]
    if owners:
        return _message(owners, owners)
    return (
        f"the package `agentscope` that Python finds is not {OURS}'s: {agentscope.__file__ or agentscope.__path__}; "
        "move it away, or take its folder off PYTHONPATH"
    )


def _message(shown: list[str], names: list[str]) -> str:
    return (
        f"another distribution owns the import name `agentscope`: {', '.join(shown)}; {OURS} can't share an "
        f"environment with it. Run: pip uninstall {' '.join(names)} && pip install --force-reinstall {OURS}"
    )
