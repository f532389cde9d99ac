"""agentscope-kernel: the application kernel for agent apps.

Importing the package does no work: each name is imported from the room that owns it, for example
``from agentscope.runtime import runtime`` or ``from agentscope.message import Msg``.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
