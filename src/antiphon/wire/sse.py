"""Server-sent events as bytes, and back: https://html.spec.whatwg.org/multipage/server-sent-events.html. No I/O."""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

__all__ = ["EventReader", "ServerEvent", "encode_comment", "encode_event"]

_LINE_END = re.compile("\r\n|\r|\n")


class ServerEvent(NamedTuple):
    """An event as a client sees it. ``id``: the last one that the stream has named, "" before the first."""

    event: str
    data: str
    id: str = ""


def encode_event(
    data: str | None = None, *, event: str | None = None, event_id: str | None = None, retry_ms: int | None = None
) -> bytes:
    """Return one event. Without ``data`` a client calls no listener: it takes note of ``event_id`` and ``retry_ms`` alone.

    Raises ValueError for an ``event`` or ``event_id`` of more than one line, or with a NUL.
    """
    lines = []
    for name, value in (("event", event), ("id", event_id)):
        if value is not None:
            if _LINE_END.search(value) or "\0" in value:
                raise ValueError(f"{name}: expected text of one line; got {value!r:.80}")
            lines.append(f"{name}: {value}")
    if retry_ms is not None:
        lines.append(f"retry: {retry_ms:d}")
    if data is not None:
        lines += [f"data: {line}" for line in _LINE_END.split(data)]
    return ("\n".join(lines) + "\n\n").encode("utf-8", "replace")


def encode_comment(text: str = "") -> bytes:
    """Return a comment: clients skip it, and everything between sees that the line is alive."""
    return f": {text}\n\n".encode() if text else b":\n\n"


class EventReader:
    """Reads a stream as a browser does."""

    def __init__(self) -> None:
        self.last_id = ""
        self.retry_ms: int | None = None
        self.comments = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._begun = False
        self._data: list[str] = []
        self._event = self._id = ""

    def __repr__(self) -> str:
        return f"<EventReader at {self.last_id!r}>"

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """Take bytes; return the events that they complete."""
        text = self._rest + self._decoder.decode(chunk)
        if not self._begun and text:
            self._begun, text = True, text.removeprefix("\ufeff")
        # A CR at the end may be half of a CR LF.
        held = "\r" if text.endswith("\r") else ""
        *lines, self._rest = _LINE_END.split(text.removesuffix(held) if held else text)
        self._rest += held
        found = []
        for line in lines:
            event = self._line(line)
            if event is not None:
                found.append(event)
        return found

    def _line(self, line: str) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name:
            self.comments += 1
        elif name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_ms = int(value)
        return None

    def _dispatch(self) -> ServerEvent | None:
        self.last_id = self._id
        data, event = self._data, self._event
        self._data, self._event = [], ""
        return ServerEvent(event or "message", "\n".join(data), self.last_id) if data else None
