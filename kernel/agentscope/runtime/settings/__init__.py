"""The configuration of a project: ``agentapp.yaml``, the environment, ``.env`` and flags, as one frozen tree."""

from agentscope.runtime.settings._describe import Described, describe
from agentscope.runtime.settings._load import Flag, load_model_slots, load_settings
from agentscope.runtime.settings._loaded import LoadedSettings
from agentscope.runtime.settings._problems import ConfigurationError, Problem
from agentscope.runtime.settings._tree import (
    AuthSettings,
    JwtSettings,
    McpServerSettings,
    ModelSettings,
    PlatformSettings,
    ServerSettings,
    SessionSettings,
    Settings,
)

__all__ = [
    "AuthSettings",
    "ConfigurationError",
    "Described",
    "Flag",
    "JwtSettings",
    "LoadedSettings",
    "McpServerSettings",
    "ModelSettings",
    "PlatformSettings",
    "Problem",
    "ServerSettings",
    "SessionSettings",
    "Settings",
    "describe",
    "load_model_slots",
    "load_settings",
]
