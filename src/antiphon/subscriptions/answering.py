"""``Answering``: calls the application's methods for a client's commands, and says what came of it.

Whatever a method raises becomes an error of the one table (``wire.centrifuge.tables``); what it says stays in the log.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from hashlib import blake2b
from inspect import isawaitable, iscoroutinefunction
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ..consumers.threads import run_sync
from ..exceptions import EngineUnavailable, MessageTooLarge, ReplyError, TokenExpired, TokenInvalid
from ..names import require_group
from ..types import Position
from ..wire.centrifuge import commands
from ..wire.centrifuge.session import Session, Subscription
from ..wire.centrifuge.tables import ERRORS, Error
from ..wire.centrifuge.writing import error_reply, reply
from .permissions import Claims, Grant
from .pushes import PUBLICATION, publication_of, sayable

if TYPE_CHECKING:
    from .consumer import SubscriptionConsumer

__all__ = ["Answering", "BadToken", "Refusal", "client_id", "ttl_s", "within"]

logger = logging.getLogger("antiphon.consumer")

# What a client may call a method; dots are underscores in its name.
_METHOD = re.compile(r"[a-zA-Z0-9_.]{1,100}")

# Members that one presence reply holds.
ROSTER_MAX = 1000


_NAMES = {cls: name for name, cls in commands.COMMANDS.items()}


class Refusal(Exception):  # it says no, and nothing has gone wrong
    """Ends a command with an error of the table."""

    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.error = ERRORS[error]


def client_id(channel: str) -> str:
    """Return what clients are told of a connection in place of its channel: the same on every node, and a dead end."""
    return str(UUID(bytes=blake2b(channel.encode(), digest_size=16, person=b"antiphon client").digest()))


class BadToken(Exception):
    """Ends the connection: its token is not one. TokenInvalid is answered."""


def ttl_s(expires_s: float) -> int:
    """Return for how many whole seconds something lasts still, at least one: 0 is no time to a client."""
    return max(1, math.floor(expires_s - time.time()))


class Answering:
    """The commands that change nothing of the connection."""

    def __init__(self, consumer: SubscriptionConsumer, session: Session) -> None:
        self.consumer = consumer
        self.connection = consumer._antiphon
        self.session = session
        self.groups: dict[str, Subscription] = {}  # by the name of the group
        self.claims = Claims()

    @property
    def id(self) -> str:
        """What clients know this connection by."""
        return client_id(self.connection.mailbox.channel)

    async def say(self, text: str) -> None:
        """Send one frame to the client."""
        await self.connection.outlet.send({"type": "websocket.send", "text": text})

    # Calling the application

    async def allows(self, name: str, *args: Any) -> Any:
        """Ask the application for a permission; return a Grant, True or False."""
        allowed = await self.call(name, *args)
        if isawaitable(allowed):  # it is true as any object is
            raise TypeError(f"{type(self.consumer).__qualname__}.{name}() returned {allowed!r:.120}: await it there")
        return allowed if isinstance(allowed, Grant) else bool(allowed)

    async def call(self, name: str, *args: Any) -> Any:
        """Call a method of the application's: a coroutine function here, any other on a thread."""
        method = getattr(self.consumer, name)
        if iscoroutinefunction(method):
            return await method(*args)
        value = await run_sync(method, *args, under_test=self.connection.under_test)
        return await value if isawaitable(value) else value

    async def tell(self, name: str, *args: Any) -> None:
        """Call a method that nobody waits for the answer of."""
        try:
            await self.call(name, *args)
        except Exception as exc:
            await self._report(exc, name)

    async def _report(self, exc: Exception, name: str) -> None:
        """Give an exception to ``on_error``. Whatever that says, the connection stays: a reply says what has failed."""
        if self.connection.under_test:
            raise exc
        try:
            told = self.consumer.on_error(exc, name)
            if isawaitable(told):
                await told
        except Exception as second:
            logger.exception("%s.on_error() raised", type(self.consumer).__qualname__, exc_info=second)

    async def answer(self, command: commands.Command) -> None:
        """Carry out a command and answer it, with its result or with an error."""
        name = _NAMES[type(command)]
        text, _ = await self.attempt(command, name, getattr(self, "_" + name))
        await self.say(text)

    async def attempt(
        self, command: commands.Command, name: str, carry_out: Callable[[Any], Awaitable[Mapping[str, Any]]]
    ) -> tuple[str, bool]:
        """Return the reply to a command, whatever becomes of it, and whether it was carried out. Raises BadToken."""
        error = ERRORS["internal"]
        try:
            return reply(command.id, name, await carry_out(command)), True
        except BadToken:
            raise
        except Refusal as exc:
            error = exc.error
        except ReplyError as exc:
            error = Error(exc.code, exc.message, exc.temporary)
        except TokenExpired:
            error = ERRORS["token_expired"]
        except TokenInvalid:
            error = ERRORS["permission_denied"]
        except EngineUnavailable as exc:
            logger.warning("%s could not %s: %s", type(self.consumer).__qualname__, name, exc)
        except Exception as exc:
            await self._report(exc, name)
        return error_reply(command.id, error), False

    async def group_of(self, channel: str) -> str:
        """Return the group of a channel. Raises Refusal."""
        group = self.consumer.group_for(channel)
        if group is None:
            raise Refusal("permission_denied")
        try:
            require_group(group)
        except TypeError:
            raise Refusal("bad_request") from None
        return group

    def info(self) -> dict[str, Any]:
        """Return what others are told of this connection."""
        info: dict[str, Any] = {"client": self.id, "user": self.connection.mailbox.user or ""}
        if self.claims.info:
            info["conn_info"] = dict(self.claims.info)
        return info

    # Commands

    async def _publish(self, command: commands.Publish) -> Mapping[str, Any]:
        group = await self.group_of(command.channel)
        if not await self.allows("authorize_publish", group, command.data):
            raise Refusal("permission_denied")
        message = {"type": PUBLICATION, "data": command.data, "info": self.info()}
        try:
            await self.consumer.channel_layer.group_send(group, message)
        except MessageTooLarge:
            raise Refusal("limit_exceeded") from None
        except TypeError:  # JSON knows more than a layer takes: large integers, depth
            raise Refusal("bad_request") from None
        return {}

    async def _history(self, command: commands.History) -> Mapping[str, Any]:
        group = await self.group_of(command.channel)
        if not await self.allows("authorize_history", group):
            raise Refusal("permission_denied")
        layer = self.consumer.channel_layer
        if not layer.group_options(group).history_size:
            raise Refusal("not_available")
        since = await self.position_of(group, command.position) if command.position is not None else None
        if command.limit == 0:
            top = await layer.position(group)
            return {"publications": [], "epoch": top.epoch, "offset": top.offset}
        most = self.consumer.history_limit
        limit = most if command.limit < 0 else min(command.limit, most)
        # Without a place to begin at, the protocol's histories begin with the oldest, and the layer's with the newest.
        # From a place and in reverse, they go back from there: that is how a page loads what is older.
        back = since if command.reverse else None
        cut = limit if back is None and (since is not None or command.reverse) else None
        history = await layer.history(group, since=None if back else since, limit=cut, reverse=command.reverse)
        if since is not None and not (history.complete if back is None else since.epoch == history.position.epoch):
            raise Refusal("unrecoverable")
        user = self.connection.mailbox.user
        found = (
            publication_of(each.message, each.position)
            for each in history
            if (not user or each.author != user) and (back is None or each.position.offset < back.offset)
        )
        return {
            "publications": sayable(islice(found, limit), group),
            "epoch": history.position.epoch,
            "offset": history.position.offset,
        }

    async def position_of(self, group: str, given: tuple[str, int]) -> Position:
        """Return the position that a client gave; an epoch "" is any, so it is the one of now."""
        epoch, offset = given
        return Position(epoch or (await self.consumer.channel_layer.position(group)).epoch, offset)

    async def _presence(self, command: commands.Presence) -> Mapping[str, Any]:
        group = await self._present_in(command.channel)
        roster = await self.consumer.channel_layer.presence(group, limit=ROSTER_MAX)
        present = {}
        for member in roster:
            number = client_id(member.channel)
            present[number] = {"client": number, "user": member.user or ""}
            if member.info:
                present[number]["conn_info"] = member.info
        return {"presence": present}

    async def _presence_stats(self, command: commands.PresenceStats) -> Mapping[str, Any]:
        group = await self._present_in(command.channel)
        stats = await self.consumer.channel_layer.presence_stats(group)
        return {"num_clients": stats.connections, "num_users": stats.users}

    async def _present_in(self, channel: str) -> str:
        group = await self.group_of(channel)
        if not await self.allows("authorize_presence", group):
            raise Refusal("permission_denied")
        if not self.consumer.channel_layer.group_options(group).presence:
            raise Refusal("not_available")
        return group

    async def _rpc(self, command: commands.Rpc) -> Mapping[str, Any]:
        name = "rpc_" + command.method.replace(".", "_")
        if not _METHOD.fullmatch(command.method) or not callable(getattr(self.consumer, name, None)):
            raise Refusal("method_not_found")
        return {"data": await self.call(name, command.data)}

    async def take_message(self, command: commands.Send) -> None:
        """Give the application what needs no answer."""
        await self.tell("on_message", command.data)


async def within(until_s: float, call: Awaitable[Any]) -> Any:
    """Wait for a call until a time of the loop. Raises Refusal when it takes longer."""
    limit = asyncio.timeout_at(until_s)
    try:
        async with limit:
            return await call
    except TimeoutError:
        if not limit.expired():
            raise
        raise Refusal("internal") from None
