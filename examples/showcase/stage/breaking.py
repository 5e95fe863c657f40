"""Breaks the demo on purpose: kills a process that serves it, or the engine below. For this demo only.

A worker asks its supervisor, over the socket between them, because a page's connection may be in another worker than the
one that answers its request. The engine is killed here: its warden starts it again.
"""

import os
import signal
import socket

from antiphon.layers import get_channel_layer
from django.conf import settings

# The socket to the supervisor, where there is one; ``worker.py`` sets it.
supervisor = None


def breakable():
    """Return what can be broken here, and why the rest cannot: for the templates."""
    reason = ""
    if settings.LAYER == "memory":
        reason = "No engine to restart: the memory engine lives in this one process, and nobody would start that again."
    elif settings.LAYER != "embedded":
        reason = f"The engine at {settings.LAYER} is not the demo’s own: restart it yourself, and watch."
    return {"process": supervisor is not None, "engine": settings.LAYER == "embedded", "reason": reason}


def kill_process(process):
    """Have the supervisor kill one of its workers, as ``kill -9`` would."""
    supervisor.send(f"kill {process}\n".encode())


def restart_engine():
    """Kill the packaged Valkey; return the process it was. What it held is in its append-only file."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(2)
        link.connect(get_channel_layer().server.path)
        link.sendall(b"INFO server\r\n")
        answer = b""
        while b"process_id:" not in answer or b"\n" not in answer.partition(b"process_id:")[2]:
            part = link.recv(65536)
            if not part:
                raise ConnectionError("the engine has just died")
            answer += part
    process = int(answer.partition(b"process_id:")[2].split()[0])
    os.kill(process, signal.SIGKILL)
    return process
