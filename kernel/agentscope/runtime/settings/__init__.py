"""The configuration of a project: ``agentapp.yaml``, the environment, ``.env`` and flags, as one frozen tree."""

from agentscope.runtime.settings._tree import ModelSettings, ServerSettings, SessionSettings, Settings

__all__ = ["ModelSettings", "ServerSettings", "SessionSettings", "Settings"]
