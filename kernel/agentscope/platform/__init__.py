"""The port to a hosting platform: who is told how this instance is, and asks it to load itself again or to restart."""

from agentscope.platform._port import Action, Heartbeat, Instance, InstanceStatus, Platform, PlatformState

__all__ = ["Action", "Heartbeat", "Instance", "InstanceStatus", "Platform", "PlatformState"]
