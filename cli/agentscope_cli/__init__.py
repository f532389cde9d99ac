"""The ``agentscope`` command."""

__all__: list[str] = []
