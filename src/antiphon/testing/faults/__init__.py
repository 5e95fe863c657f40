"""Fault tools for tests: real servers and processes to start, kill and stop, a proxy that cuts, a watch for stalls.

Public, and needs none of the servers to be imported. The calls are synchronous and short: asynchronous tests make them
too.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    raise ImportError("these tools stop and kill processes as POSIX systems do; run such tests there")

from .child import ChildProcess, Peer
from .clock import clock_offset
from .cluster import ValkeyCluster
from .process import ServerProcess
from .proxy import Proxy
from .resp import RespClient, RespError
from .sentinel import ValkeySentinel
from .valkey import ValkeyServer, find_binary, free_port
from .watch import LoopWatch, Stall

__all__ = [
    "ChildProcess",
    "LoopWatch",
    "Peer",
    "Proxy",
    "RespClient",
    "RespError",
    "ServerProcess",
    "Stall",
    "ValkeyCluster",
    "ValkeySentinel",
    "ValkeyServer",
    "clock_offset",
    "find_binary",
    "free_port",
]
