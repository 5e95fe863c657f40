"""A project of one test, with an embedded Valkey of its own and processes that use it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from antiphon.engines.redis import embedded
from antiphon.engines.redis.embedded import EmbeddedValkey

SOURCE = Path(embedded.__file__).parents[3]
LINGER_S = 0.3


# A process that uses the server: it says "ready", then does what each line of its input says.
USER = """
import json, os, sys, time
from antiphon.engines.redis.embedded import EmbeddedValkey, _ask
import socket

def ask(command):
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(valkey.path)
        return _ask(link, command.encode()).decode()

valkey = EmbeddedValkey(**json.loads(sys.argv[1]))
valkey.ensure_blocking()
print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps(eval(line)), flush=True)
"""


class User:
    """A process that uses the server."""

    def __init__(self, environment: dict[str, str], **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, json.dumps({"linger_s": LINGER_S} | options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )

    def ready(self) -> None:
        assert self._line() == "ready\n"

    def do(self, expression: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()
        return json.loads(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            assert self.process.stderr is not None
            pytest.fail(f"the user ended: {self.process.stderr.read()}")
        return line

    def leave(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(30) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)


class House:
    """A project of its own: its users, and what they share."""

    def __init__(self, home: Path) -> None:
        self.environment = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
        self.environment |= {"PYTHONPATH": str(SOURCE), "XDG_STATE_HOME": str(home), "PYTHONDEVMODE": ""}
        self.project = uuid.uuid4().hex
        self.users: list[User] = []
        self.here: EmbeddedValkey = EmbeddedValkey(self.project, linger_s=LINGER_S)

    def user(self, **options: Any) -> User:
        self.users.append(User(self.environment, **({"project": self.project} | options)))
        return self.users[-1]

    def ask(self, command: str, folder: Path | None = None) -> str:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(30)
            link.connect(str((folder or self.here.folder) / "valkey.sock"))
            return embedded._ask(link, command.encode()).decode()

    def server(self) -> int:
        return int(self.ask("INFO server").partition("process_id:")[2].split()[0])

    def warden(self) -> int:
        return int(Path(f"/proc/{self.server()}/stat").read_text().rpartition(")")[2].split()[1])

    def watched(self) -> bool:
        """Say whether a warden lives, as its lock has it: a process looks dead before it has let its files go."""
        with (self.here.folder / "warden.lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def log(self) -> str:
        return (self.here.folder / "valkey.log").read_text()
