"""``Histories``: what a layer's callers see of the logs of groups: reading them, positions in them, what is asked of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ..envelope import CONTROL, HeadedEnvelope, unpack
from ..exceptions import OptionError
from ..framework import user_key
from ..names import group_topic, require_group
from ..types import Keep, Message, Page, Position
from .worker_channels import WorkerChannels

__all__ = ["Histories", "History", "Publication", "Terms"]

_LIMIT_MAX = 10_000


class Terms(NamedTuple):
    """What a message asks of its group's log: see ``group_send``."""

    idempotency_key: str | None = None
    version: int = 0
    version_epoch: str = ""


class Publication(NamedTuple):
    """One message of a group's history. ``author``: whom it was not for; ``sent_s``: epoch seconds, the sender's clock."""

    position: Position
    message: Message
    author: str | None
    sent_s: float


class History:
    """What was read of a group's history: a sequence of publications.

    ``position``: of the newest message of the group. ``complete``: nothing that came after ``since`` is missing from
    the history; where it is False, the publications begin after a hole, or ``since`` is no place in this history.
    """

    def __init__(self, publications: list[Publication], position: Position, *, complete: bool) -> None:
        self.publications = publications
        self.position = position
        self.complete = complete

    def __repr__(self) -> str:
        return f"<History of {len(self.publications)} up to {self.position}{'' if self.complete else ', incomplete'}>"

    def __len__(self) -> int:
        return len(self.publications)

    def __iter__(self) -> Iterator[Publication]:
        return iter(self.publications)

    def __getitem__(self, index: int) -> Publication:
        return self.publications[index]


class Histories(WorkerChannels):
    """The part of :class:`~antiphon.layers.ChannelLayer` that knows of histories."""

    async def history(
        self, group: str, *, since: Position | None = None, limit: int | None = None, reverse: bool = False
    ) -> History:
        """Read what a group's history holds after ``since``, the oldest first; ``reverse``: from the newest down.

        At most ``limit`` messages (by default all that the group's options promise); without ``since`` and
        ``reverse``, the last ``limit``. Raises OptionError for a group without history, EngineUnavailable.
        """
        topic, size = self._logged(group)
        limit = size if limit is None else checked_limit(limit)
        if since is not None:
            since = checked_position(since)
        turned = since is None and not reverse  # the last of them, and yet the oldest first
        node = self._node()

        async def read() -> Page:
            return await node.engine.read(topic, since, limit, reverse=reverse or turned)  # type: ignore[attr-defined,no-any-return]

        page = await self._on(node, read)
        entries = reversed(page.entries) if turned else page.entries
        publications = []
        for entry in entries:
            envelope = self._opened(entry.payload, topic, Position(page.top.epoch, entry.offset))
            if envelope is not None and envelope.position is not None and not envelope.extra.get("y"):
                author = envelope.extra.get("a") if envelope.extra.get("x") else None
                sent_s = envelope.sent_us / 1e6
                publications.append(Publication(envelope.position, envelope.message(), author, sent_s))
        return History(publications, page.top, complete=page.complete)

    async def position(self, group: str) -> Position:
        """Return the position of a group's newest message. Raises OptionError for one without history."""
        return (await self.positions([group]))[group]

    async def positions(self, groups: Iterable[str]) -> dict[str, Position]:
        """Return the positions of several groups, read in one go; errors as of ``position``."""
        topics = {group: self._logged(group)[0] for group in groups}
        node = self._node()

        async def read() -> list[Position]:
            return await node.engine.tops(list(topics.values()))  # type: ignore[attr-defined,no-any-return]

        return dict(zip(topics, await self._on(node, read), strict=True))

    def positions_blocking(self, groups: Iterable[str]) -> dict[str, Position]:
        """As ``positions``, from a thread without a loop."""
        topics = {group: self._logged(group)[0] for group in groups}
        tops = self._engine.tops_blocking(list(topics.values()))  # type: ignore[attr-defined]  # it keeps logs
        return dict(zip(topics, tops, strict=True))

    def _logged(self, group: str) -> tuple[str, int]:
        """Return the topic of a group and the size of its history. Raises OptionError where it has none."""
        require_group(group)
        options = self._groups.of(group)
        if not options.history_size:
            raise OptionError(
                f'group {group!r} has no history: set history_size for it in CONFIG["groups"] of the layer'
            )
        return group_topic(group), options.history_size

    def _opened(self, payload: bytes, topic: str, position: Position) -> HeadedEnvelope | None:
        try:
            envelope = unpack(payload, topic, 0.0, position)
            if self._cipher is not None:
                envelope.body = self._cipher.open(topic, envelope.header, envelope.body)
        except ValueError as exc:
            self._lose("undecodable", f"(the history of {topic[2:]}: {exc})")
            return None
        return envelope if envelope.kind != CONTROL else None

    # What a message asks

    def terms(self, idempotency_key: Any = None, version: Any = 0, version_epoch: Any = "") -> Terms | None:
        """Check what a message may ask of its group's log; None: nothing. Raises TypeError."""
        if idempotency_key is None and not version:
            return None
        if idempotency_key is not None and not (isinstance(idempotency_key, str) and 0 < len(idempotency_key) <= 200):
            raise TypeError(f"idempotency_key: expected a str of 1 to 200 characters; got {idempotency_key!r:.80}")
        if not isinstance(version, int) or isinstance(version, bool) or not 0 <= version < 1 << 53:
            raise TypeError(f"version: expected an int from 1 to 2**53 - 1; got {version!r:.80}")
        if not isinstance(version_epoch, str) or len(version_epoch) > 200:
            raise TypeError(f"version_epoch: expected a str of at most 200 characters; got {version_epoch!r:.80}")
        return Terms(idempotency_key, version, version_epoch)

    def keep(self, topic: str, terms: Terms | None = None) -> Keep | None:
        """Return how a message on ``topic`` is kept. Raises OptionError for terms where there is no log."""
        keep = self._groups.keep(topic)
        if terms is None:
            return keep
        if keep is None:
            raise OptionError(
                f"group {topic[2:]!r} has no history, and idempotency_key and version need one: set history_size"
                ' for it in CONFIG["groups"] of the layer'
            )
        return keep._replace(**terms._asdict())

    def excluding(self, excluded: Sequence[str], author: Any = None, *, kept: bool) -> dict[str, Any] | None:
        """Return the extra of a message that some channels do not get. ``kept``: it has a log, so its author is noted."""
        if not excluded:
            return None
        extra: dict[str, Any] = {"x": excluded}
        if kept:
            key = self._user_of(excluded) if author is None else user_key(author) if author != "" else None
            if key:
                extra["a"] = key
        return extra

    def _user_of(self, channels: Iterable[str]) -> str | None:
        for channel in channels:
            node = self._owner(channel)
            mailbox = node.hub.mailboxes.get(channel) if node is not None else None
            if mailbox is not None and mailbox.user is not None:
                return mailbox.user
        return None


def checked_limit(limit: object) -> int:
    """Return how many messages to read. Raises ValueError."""
    if not isinstance(limit, int) or isinstance(limit, bool) or not 0 <= limit <= _LIMIT_MAX:
        raise ValueError(f"limit: expected an int from 0 to {_LIMIT_MAX}; got {limit!r:.80}")
    return limit


def checked_position(position: object) -> Position:
    """Return a position that somebody gave. Raises TypeError."""
    if isinstance(position, (tuple, list)) and len(position) == 2:
        epoch, offset = position
        if isinstance(epoch, str) and isinstance(offset, int) and not isinstance(offset, bool) and offset >= 0:
            return Position(epoch, offset)
    raise TypeError(f"a position is Position(epoch: str, offset: int, 0 or more); got {position!r:.120}")
