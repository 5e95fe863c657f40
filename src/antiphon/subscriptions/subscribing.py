"""``Subscribing``: a client's way into groups and out of them, by its own will and by others'.

A subscription is a membership of the connection's own mailbox. Nothing of a group goes to the client before the reply to
its subscribe has: the connection handles one thing at a time, and its mailbox holds what comes meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..consumers.handlers import markers_of
from ..consumers.join_result import JoinResult
from ..envelope import MARKER, Envelope
from ..layer.presence import each_user
from ..names import group_topic
from ..wire.centrifuge import commands
from ..wire.centrifuge.session import Subscription
from ..wire.centrifuge.tables import UNSUBSCRIBES, Unsubscribe
from ..wire.centrifuge.writing import encode, join_push, leave_push, reply, unsubscribe_push
from .answering import Answering, Refusal, client_id, ttl_s, within
from .permissions import Grant
from .pushes import MARKERS, publication_of, sayable

__all__ = ["Subscribing"]

# What ends subscriptions is always listened for; who comes and goes, only where a client has asked.
_ENDS = frozenset(("group.lost", "group.epoch", "antiphon.unsubscribe"))
_PRESENCE = frozenset(("presence.join", "presence.leave"))


class Subscribing(Answering):
    """The commands about subscriptions."""

    def listen(self) -> None:
        """Have the markers put into the mailbox that this client is to hear of."""
        asked = any(subscription.join_leave for subscription in self.groups.values())
        own = markers_of(type(self.consumer))  # for groups that the application has joined
        self.connection.mailbox.wants = own | _ENDS | _PRESENCE if asked else own | _ENDS

    def forget_waiting(self, group: str) -> list[Envelope]:
        """Take what waits of a group out of the mailbox, and return it."""
        queue, topic = self.connection.mailbox.queue, group_topic(group)
        taken = [envelope for envelope in queue if envelope.topic == topic]
        if taken:
            queue[:] = [envelope for envelope in queue if envelope.topic != topic]
        return taken

    # Into a group

    async def subscribe(self, command: commands.Subscribe, until_s: float) -> None:
        """Carry out a subscribe. ``until_s``: when the client must have its answer, by the loop's clock."""
        subscriptions: list[Subscription] = []

        async def carry_out(command: commands.Subscribe) -> Mapping[str, Any]:
            subscription, result = await self._enter(command, until_s)
            subscriptions.append(subscription)
            return result

        text, _ = await self.attempt(command, "subscribe", carry_out)
        await self.say(text)
        for subscription in subscriptions:
            await self.tell("on_subscribe", subscription.group)

    async def _enter(self, command: commands.Subscribe, until_s: float) -> tuple[Subscription, dict[str, Any]]:
        group = await self.group_of(command.channel)
        grant = await within(until_s, self._permission(group, command.token))
        if group in self.groups:
            raise Refusal("already_subscribed")  # by another name
        options = self.consumer.channel_layer.group_options(group)
        since = None
        if command.recover and options.history_size:
            since = await within(until_s, self.position_of(group, (command.epoch, command.offset)))
        joined = await within(until_s, self.consumer._antiphon_enter(group, since))
        missed = self.forget_waiting(group) if joined.position is not None else []
        if group_topic(group) not in self.connection.mailbox.topics:
            self.forget_waiting(group)
            raise Refusal("permission_denied")  # somebody has put it out again meanwhile
        if command.recover and command.all_or_error and not joined.recovered:
            await self._exit(group)
            raise Refusal("unrecoverable")
        subscription = Subscription(
            command.channel,
            group,
            epoch=joined.position.epoch if joined.position is not None else None,
            join_leave=command.join_leave and options.presence,
            token=bool(command.token),
            ends_s=self.ends_s(grant.expires_s),
        )
        try:
            result = self._result(command, joined, missed if since is not None else [], grant)
            encode(grant.data)
        except BaseException:  # what cannot be said must not become a subscription
            await self._exit(group)
            raise
        self.session.subscribed(subscription)
        self.groups[group] = subscription
        self.listen()
        return subscription, result

    async def _permission(self, group: str, token: str) -> Grant:
        """Return the terms on which the client may subscribe. Raises Refusal, or as the application does."""
        if token:
            allowed = await self.allows("authorize_token", group, token)
        else:
            allowed = await self.allows("authorize_subscribe", group)
        if not allowed:
            raise Refusal("permission_denied")
        return allowed if isinstance(allowed, Grant) else Grant()

    def _result(
        self, command: commands.Subscribe, joined: JoinResult, missed: list[Envelope], grant: Grant
    ) -> dict[str, Any]:
        result: dict[str, Any] = {}
        position = joined.position
        if position is not None:
            result.update(recoverable=True, positioned=True, epoch=position.epoch, offset=position.offset)
        if command.recover:
            result["was_recovering"] = True
        if position is not None and joined.recovered:
            publications = sayable(_contents(missed), joined.group)
            result["recovered"] = True
            # Each publication moves the client on from here: what it asked for, or it would lose what follows a cut.
            result["offset"] = command.offset if joined.count else position.offset
            options = self.consumer.channel_layer.group_options(joined.group)
            if options.recovery == "cache" and publications:
                result["offset"] = publications[0]["offset"] - 1
            if publications:
                result["publications"] = publications
        if grant.data is not None:
            result["data"] = grant.data
        if grant.expires_s is not None:
            result.update(expires=True, ttl=ttl_s(grant.expires_s))
        return result

    def ends_s(self, expires_s: float | None) -> float | None:
        """Return by the loop's clock what is given in seconds since the epoch."""
        return None if expires_s is None else self.connection.mailbox.loop.time() + ttl_s(expires_s)

    async def refresh_subscription(self, command: commands.SubRefresh) -> None:
        """Carry out a sub_refresh."""

        async def carry_out(command: commands.SubRefresh) -> Mapping[str, Any]:
            subscription = self.session.subscriptions[command.channel]
            grant = await self._permission(subscription.group, command.token)
            subscription.ends_s = self.ends_s(grant.expires_s)
            return {} if grant.expires_s is None else {"expires": True, "ttl": ttl_s(grant.expires_s)}

        text, _ = await self.attempt(command, "sub_refresh", carry_out)
        await self.say(text)

    # Out of it

    async def unsubscribe(self, command: commands.Unsubscribe) -> None:
        """Carry out an unsubscribe."""
        subscription = self.session.unsubscribed(command.channel)
        if subscription is not None:
            del self.groups[subscription.group]
            await self._exit(subscription.group)
        await self.say(reply(command.id, "unsubscribe"))
        if subscription is not None:
            await self.tell("on_unsubscribe", subscription.group)

    async def _exit(self, group: str) -> None:
        if group not in self.consumer._antiphon_joined:
            await self.consumer._antiphon_exit(group)
            self.forget_waiting(group)
        self.listen()

    def cut_off(self, subscription: Subscription, why: str | Unsubscribe) -> str:
        """End a subscription at once; return what tells the client.

        A plain call, because nothing more of the group may be sent from here on. What is left to do for it is done in
        the line of the client's own events.
        """
        group, connection = subscription.group, self.connection
        self.session.unsubscribed(subscription.channel)
        self.groups.pop(group, None)
        if connection.node is not None and group not in self.consumer._antiphon_joined:
            connection.node.leave(group_topic(group), connection.mailbox)
            self.forget_waiting(group)
        connection.put_event({"type": "subscription.ended", "group": group})
        return unsubscribe_push(subscription.channel, UNSUBSCRIBES[why] if isinstance(why, str) else why)

    async def ended(self, group: str) -> None:
        """Do what is left to do for a subscription that was cut off."""
        if group not in self.groups:
            await self._exit(group)
        await self.tell("on_unsubscribe", group)

    # What the layer says

    def told(self, group: str, message: Mapping[str, Any]) -> str | None:
        """Take what the layer says of a group; return what the client is to hear of it."""
        subscription, kind = self.groups.get(group), message.get("type")
        if subscription is None:
            return None
        if kind in ("group.lost", "group.epoch"):
            # It comes back at once with what it has seen: the log, or "recovered: false", says the rest.
            return self.cut_off(subscription, "insufficient_state")
        if kind == "antiphon.unsubscribe":
            user = message.get("user")
            if user is not None and user != self.connection.mailbox.user:
                return None
            return self.cut_off(subscription, _why(message.get("code")))
        if kind not in _PRESENCE or not subscription.join_leave:
            return None
        push = join_push if kind == "presence.join" else leave_push
        return "\n".join(push(subscription.channel, _info(each)) for each in each_user(dict(message))) or None

    async def check(self, channel: str) -> None:
        """Ask again whether a client may have a channel, and end its subscription if it may not.

        What a token has allowed lasts as long as the token.
        """
        subscription = self.session.subscriptions.get(channel)
        if subscription is None or subscription.token:
            return
        until_s = asyncio.get_running_loop().time() + self.consumer.subscribe_timeout_s
        try:
            await within(until_s, self._permission(subscription.group, ""))
        except Refusal as exc:
            if exc.error.temporary:  # not knowing is no reason to throw people out
                return
            await self.say(self.cut_off(subscription, "permission_lost"))
        except Exception as exc:
            await self._report(exc, "authorize_subscribe")


def _contents(envelopes: Iterable[Envelope]) -> Iterator[dict[str, Any]]:
    for envelope in envelopes:
        with contextlib.suppress(ValueError):  # no message of ours
            if envelope.kind != MARKER and (message := envelope.message()).get("type") not in MARKERS:
                yield publication_of(message, envelope.position)


def _why(code: Any) -> Unsubscribe:
    found = [why for why in UNSUBSCRIBES.values() if why.code == code]
    return found[0] if found else UNSUBSCRIBES["server"]


def _info(user: Mapping[str, Any]) -> dict[str, Any]:
    info: dict[str, Any] = {"client": client_id(str(user.get("channel", ""))), "user": user.get("user") or ""}
    if user.get("info"):
        info["conn_info"] = user["info"]
    return info
