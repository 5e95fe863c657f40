"""``Client``: one connection's conversation. Carries out what its session (``wire.centrifuge.session``) asks for.

Frames of the client, its deadlines and what others do to its subscriptions are handled one after another, in the line
of the connection's events. Pings alone go out by themselves: a method of the application's may take its time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .. import framework
from ..consumers.identity import over_user_limit
from ..exceptions import TokenExpired, TokenInvalid
from ..options import parse_rate
from ..wire.centrifuge import commands
from ..wire.centrifuge.session import CONNECTED, Answer, Close, Limits, Session
from ..wire.centrifuge.tables import Disconnect
from ..wire.centrifuge.writing import PING, message_push
from ..wire.prebuilt import Prebuilt
from .answering import BadToken, Refusal, ttl_s
from .permissions import Claims, Grant
from .subscribing import Subscribing

if TYPE_CHECKING:
    from .consumer import SubscriptionConsumer

__all__ = ["Client", "limits_of"]

_PING = Prebuilt(PING)
# One object for all connections of a class.
_limits = lru_cache(maxsize=256)(Limits)


def limits_of(consumer: SubscriptionConsumer) -> Limits:
    """Return what a client of a consumer class may do."""
    rate = consumer.command_rate_limit
    return _limits(
        subscriptions=consumer.max_subscriptions,
        frame_characters=consumer._antiphon.limits.message_bytes,
        commands=parse_rate(rate) if rate is not None else None,
        connect_s=consumer.connect_timeout_s,
        ping_s=consumer.ping_interval_s,
        pong_s=consumer.pong_timeout_s,
        grace_s=consumer.expiry_grace_s,
    )


class Client(Subscribing):
    """One client over a WebSocket."""

    def __init__(self, consumer: SubscriptionConsumer) -> None:
        self.loop = asyncio.get_running_loop()
        super().__init__(consumer, Session(limits_of(consumer), self.loop.time()))
        self._timer: asyncio.TimerHandle | None = None
        self._pinging: asyncio.Task[None] | None = None
        self.let_in = False  # and stays so when the connection ends: on_disconnect follows on on_connect
        self._ended = False
        self._due = False  # something is, and its event waits
        self._check_s: float | None = None  # when permissions are asked for again
        self._unchecked: list[str] = []
        self.listen()
        self._arm()

    def __repr__(self) -> str:
        return f"<Client {self.session!r} of {type(self.consumer).__qualname__}>"

    async def take(self, frame: object) -> None:
        """Handle a frame of the client."""
        until_s = self.loop.time() + self.consumer.subscribe_timeout_s
        for action in self.session.feed(frame, self.loop.time()):
            if isinstance(action, Answer):
                await self.say(action.text)
            elif isinstance(action, Close):
                await self.close(action)
            elif isinstance(action, commands.Subscribe):
                await self.subscribe(action, until_s)
            elif isinstance(action, commands.Unsubscribe):
                await self.unsubscribe(action)
            elif isinstance(action, commands.Connect):
                await self._connect(action)
            elif isinstance(action, commands.Refresh):
                await self._refresh(action)
            elif isinstance(action, commands.SubRefresh):
                await self.refresh_subscription(action)
            elif isinstance(action, commands.Send):
                await self.take_message(action)
            else:
                await self.answer(action)
        self._arm()

    def framed(self, text: str) -> Any:
        """Return text as what the connection sends (``consumers.outlet``)."""
        return Prebuilt(text)

    def address(self) -> dict[str, str]:
        """Return what the client must say where its commands come by another way than its connection."""
        return {}

    async def farewell(self, why: Disconnect) -> None:
        """Say why the connection ends, where its close does not."""

    async def close(self, action: Close) -> None:
        """Close the connection."""
        why = action.why
        await self.connection.outlet.send({"type": "websocket.close", "code": why.code, "reason": why.reason})

    async def push(self, data: Any) -> None:
        """Send the client what belongs to no channel."""
        await self.say(message_push(data))

    # The connection

    async def _connect(self, command: commands.Connect) -> None:
        claims: list[Claims] = []

        async def carry_out(command: commands.Connect) -> Mapping[str, Any]:
            asked_s = time.monotonic()
            claims.append(await self._claims(command.token))
            self._identify(claims[0], asked_s)
            grant = await self.allows("authorize_connect", command.data)
            if not grant:
                raise Refusal("unauthorized")
            if isinstance(grant, Grant):
                claims[0] = _narrowed(claims[0], grant)
            self.claims = claims[0]
            return self._connected(grant.data if isinstance(grant, Grant) else None)

        try:
            text, connected = await self.attempt(command, "connect", carry_out)
        except BadToken:
            await self.close(self.session.close("invalid_token"))
            return
        if not connected:
            self.session.refused()
            await self.say(text)
            return
        now = self.loop.time()
        self.session.connected(now, self.ends_s(self.claims.expires_s))
        self.let_in = True
        if self.consumer.reauth_interval_s:
            self._check_later(now)
        await self.say(text)
        await self.tell("on_connect")

    @property
    def connected(self) -> bool:
        """Whether the client has been let in."""
        return self.session.state == CONNECTED

    async def _claims(self, token: str) -> Claims:
        """Return what the client's token says. Raises TokenExpired, BadToken."""
        if not token:
            return Claims()
        try:
            claims = await self.call("authenticate", token)
        except TokenExpired:
            raise
        except TokenInvalid as exc:
            raise BadToken(exc) from None
        return claims if isinstance(claims, Claims) else Claims(claims.user, claims.expires_s, claims.info)

    def _identify(self, claims: Claims, asked_s: float) -> None:
        """Make the connection that of a token's user; without one it stays whose it was.

        ``asked_s``: when the token was found good (monotonic), or before: whoever was closed since was not found here.
        """
        connection = self.connection
        if claims.user is None or connection.node is None:
            return
        mailbox = connection.mailbox
        if getattr(claims.user, "is_authenticated", False):
            self.consumer.scope["user"] = claims.user  # else it is a key alone
        connection.node.hub.identify(mailbox, framework.user_key(claims.user), mailbox.session, asked_s)
        revoked = self.consumer.channel_layer.revoked_since(mailbox.user, None, asked_s)
        if revoked is not None:
            mailbox.ask_close(revoked)
        if over_user_limit(connection):
            mailbox.ask_close("too_many_connections")

    def _connected(self, data: Any) -> dict[str, Any]:
        limits, claims = self.session.limits, self.claims
        result: dict[str, Any] = {"client": self.id, "version": "antiphon"}
        if limits.ping_s > 0:
            result.update(ping=max(1, int(limits.ping_s)), pong=True)
        if claims.expires_s is not None:
            result.update(expires=True, ttl=ttl_s(claims.expires_s))
        if data is not None:
            result["data"] = data
        result.update(self.address())
        return result

    async def _refresh(self, command: commands.Refresh) -> None:
        async def carry_out(command: commands.Refresh) -> Mapping[str, Any]:
            try:
                claims = await self._claims(command.token)
            except TokenExpired:
                raise Refusal("expired") from None
            if claims.user is not None and framework.user_key(claims.user) != self.connection.mailbox.user:
                raise BadToken("it is another user's")
            self.claims = claims
            self.session.ends_s = self.ends_s(claims.expires_s)
            return {} if claims.expires_s is None else {"expires": True, "ttl": ttl_s(claims.expires_s)}

        try:
            text, _ = await self.attempt(command, "refresh", carry_out)
        except BadToken:
            await self.close(self.session.close("invalid_token"))
            return
        await self.say(text)

    # Time

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # What is due already waits for its turn in the line of events; pings do not wait for it.
        next_s = (self.session.heartbeat.next_s,) if self._due else (self.session.next_s(), self._check_s)
        times = [at for at in next_s if at is not None]
        if times and not self.connection.gone:
            self._timer = self.loop.call_at(min(times), self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self.loop.time()
        if self.session.ping(now):
            self._ping()
        times = [at for at in (self.session.next_s(), self._check_s) if at is not None]
        if not self._due and min(times, default=now + 1.0) <= now:
            self._due = True
            self.connection.put_event({"type": "subscription.due"})
        self._arm()

    def _ping(self) -> None:
        socket = self.connection.mailbox.socket
        if socket is not None and socket.write(_PING):
            return
        if self._pinging is None or self._pinging.done():
            self._pinging = self.loop.create_task(self.say(PING))

    async def due(self) -> None:
        """See to what has come to its end by now."""
        self._due = False
        for each in self.session.overdue(self.loop.time()):
            if isinstance(each, Close):
                await self.close(each)
                return
            subscription = self.session.subscriptions.get(each.channel)
            if subscription is not None:
                await self.say(self.cut_off(subscription, "expired"))
        now = self.loop.time()
        if self._check_s is not None and self._check_s <= now:
            self.connection.recheck()  # session and user first; then this comes to its turn again
        elif self._unchecked:
            await self.check(self._unchecked.pop())
            # One at a time, so that what arrives meanwhile is not held up by all of them.
            if self._unchecked:
                self._due = True
                self.connection.put_event({"type": "subscription.due"})
            elif self.consumer.reauth_interval_s:
                self._check_later(now)
        elif self._check_s is None and self.connected and self.consumer.reauth_interval_s:
            self._check_later(now)
        self._arm()

    def _begin_checking(self) -> None:
        self._unchecked = list(self.session.subscriptions)
        self._check_s = None
        for user in (self.consumer.scope.get("user"), self.claims.user):
            framework.current().forget_permissions(user)

    def recheck(self) -> None:
        """Ask again for each subscription whether the client may have it, in the line of its events."""
        self._begin_checking()
        if not self._due:
            self._due = True
            self.connection.put_event({"type": "subscription.due"})

    def _check_later(self, now: float) -> None:
        interval_s = self.consumer.reauth_interval_s or 0.0
        self._check_s = now + interval_s * random.uniform(0.75, 1.0)  # noqa: S311  # not all clients at once

    def end(self) -> bool:
        """End what runs beside the handlers; False: it has ended before."""
        if self._ended:
            return False
        self._ended = True
        for each in (self._timer, self._pinging):
            if each is not None:
                each.cancel()
        self._timer = None
        return True


def _narrowed(claims: Claims, grant: Grant) -> Claims:
    ends = [at for at in (claims.expires_s, grant.expires_s) if at is not None]
    return Claims(claims.user, min(ends, default=None), {**(claims.info or {}), **(grant.info or {})} or None)
