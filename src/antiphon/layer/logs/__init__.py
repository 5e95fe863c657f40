"""A node's share in the logs of groups: nothing missing, nothing twice, or somebody is told."""

from .logs import Logs
from .recovery import Recovery

__all__ = ["Logs", "Recovery"]
