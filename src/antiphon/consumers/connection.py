"""One connection: its main task, and what passes through it. Knows consumers only by what ``base.py`` defines.

The client's events wait in the inbox (``inbox.py``), messages of the layer in the mailbox. The *main* task, which the
server started, takes from both in turn and runs one handler at a time (``handling.py``). Nothing creates a task or
visits a thread for a message.

How a connection ends, whatever ends it:

    client gone      groups left at once -> earlier frames handled -> (grace) handler cancelled -> disconnect()
    asked to close   (slow, revoked, limits, errors) close frame at once -> as above, once the server reports it, or
                     after CLOSE_WAIT_S if it never does (``ending.py``)
    StopConsumer     the main task ends
    task cancelled   disconnect() runs, for at most the grace, and the cancellation goes on
    always           the mailbox is closed and its groups are left, even if disconnect() raised
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .. import framework
from ..envelope import Envelope
from ..exceptions import StopConsumer
from ..layer.layer import ChannelLayer
from ..layer.mailbox import Mailbox, Relays
from ..layer.registry import get_channel_layer
from ..names import user_topic
from ..types import Event, Receive, Scope, Send
from ..wire.codes import normal_disconnect
from ..wire.prebuilt import EXTENSION, FrameSocket
from .ending import Ending
from .foreign import Pump
from .handlers import markers_of
from .handling import Handling
from .identity import Identity
from .inbox import Inbox
from .outlet import Outlet
from .servers import warn_of_gaps
from .threads import Janitor

if TYPE_CHECKING:
    from .base import AsyncConsumer

__all__ = ["Connection"]

logger = logging.getLogger("antiphon.consumer")

# A disconnect handler without a grace of its own, while the task is being cancelled.
LAST_GRACE_S = 10.0

# Reasons for which what the client sent before is not handled either: its handlers failed, or it has no right to.
_ABANDONING = frozenset(("error", "revoked", "unauthenticated"))

_NO_QUEUE: list[Envelope] = []

_janitors: WeakKeyDictionary[asyncio.AbstractEventLoop, Janitor] = WeakKeyDictionary()


class Connection(Handling):
    """The life of one consumer instance."""

    __slots__ = ("_ending", "_pump", "_reader", "_socket")

    def __init__(self, consumer: AsyncConsumer, scope: Scope, send: Send) -> None:
        # What the server offers beside ASGI, if it does.
        extensions = scope.get("extensions")
        self._socket: FrameSocket | None = extensions.get(EXTENSION) if extensions else None
        warn_of_gaps(scope, send)
        super().__init__(consumer, scope, Outlet(send, scope.get("type", ""), self._socket))
        self.outlet.protocol = consumer.close_protocol
        self._reader: asyncio.Task[None] | None = None
        self._pump: Pump | None = None
        self._ending: Ending | None = None

    def __repr__(self) -> str:
        busy = f" in {self.busy}()" if self.busy else ""
        return f"<Connection of {type(self.consumer).__qualname__}{busy} {self.outlet!r}>"

    # Beginning and end

    async def run(self, receive: Receive) -> None:  # noqa: C901  # in one: an idle connection keeps one frame
        """Serve the connection to its end."""
        if self._relays is not None and self.kind != "websocket":
            name = type(self.consumer).__qualname__
            raise TypeError(f"{name} has relays: they serve WebSockets, and this is {self.kind!r}")
        loop = asyncio.get_running_loop()
        self.task = asyncio.current_task()
        self._open(loop, receive)
        try:
            await self._open_more()
            if self._socket is not None:
                self._socket.attach(self)
            else:
                # Not a new inbox: a close that came meanwhile may have put the end of the connection into it.
                self._reader = loop.create_task(self._inbox_now().read(receive))
            mailbox, queue = self.mailbox, self.mailbox.queue
            hub = self.node.hub if self.node is not None else None
            while True:
                if self._attention:
                    await self._attend()
                    # Once the end is near, what still waits stays where it is, and is counted when the mailbox is
                    # closed.
                    if self.gone or mailbox.closing is not None:
                        queue = _NO_QUEUE
                    if not queue and self._attention:
                        continue
                if queue:
                    envelope = queue.pop(0)
                    if hub is None:
                        if self._pump is not None:
                            self._pump.next()
                    elif envelope.arrived_s + mailbox.expiry_s < time.monotonic():
                        hub.expired(envelope, mailbox)
                        continue
                    await self._layer_event(envelope)
                    continue
                mailbox.waiter = loop.create_future()
                try:
                    await mailbox.waiter
                except asyncio.CancelledError as exc:
                    if self._stepped is None:
                        raise
                    self._stepped.thrown = exc  # meant for the handler that runs on our behalf
                if self._janitor is not None:
                    self._janitor.touched = True
        except StopConsumer:
            pass
        except asyncio.CancelledError:
            await self._last_words(self.limits.grace_s or LAST_GRACE_S)
            raise
        except BaseException:
            await self._last_words(None)
            raise
        finally:
            await self._close()

    def _open(self, loop: asyncio.AbstractEventLoop, receive: Receive) -> None:
        consumer, revoked = self.consumer, None
        if self._socket is not None:
            self._socket.limit(self.limits.send_buffer_bytes)
            if receive != self._socket.receive:
                self._socket = None  # something between wants to see the events
        layer = consumer.channel_layer = get_channel_layer(consumer.channel_layer_alias)
        if isinstance(layer, ChannelLayer):
            self.node, self.mailbox = layer.open_mailbox(
                type(consumer).__qualname__, capacity=consumer.capacity, overflow=consumer.overflow
            )
            consumer.channel_name = self.mailbox.channel
            user, session = framework.current().identity(self.scope)
            if user is not None or session is not None:
                let_in_s = self.scope.get("antiphon.let_in_s")
                self.node.hub.identify(self.mailbox, user, session, let_in_s)
                revoked = layer.revoked_since(user, session, let_in_s) if let_in_s is not None else None
        else:
            # Without a layer, or with a foreign one, the mailbox is only what the main task waits on.
            self.mailbox = Mailbox("", loop, owner=type(consumer).__qualname__)
        self.mailbox.on_close = self._asked_to_close
        self.mailbox.on_recheck = self.recheck
        self.mailbox.info_of = consumer.presence_info
        self.mailbox.wants = markers_of(type(consumer))
        if revoked is not None:
            self.mailbox.ask_close(revoked)
        self.scope["antiphon.connection"] = self
        if consumer._antiphon_streams:
            # Where the server looks for it: a middleware may have copied the scope, and this stays the same in all copies.
            state = self.scope.get("state")
            if isinstance(state, dict):
                state["antiphon.connection"] = self
        if not self.under_test and not consumer._sync:
            janitor = _janitors.get(loop)
            if janitor is None:
                janitor = _janitors[loop] = Janitor(loop)
            self._janitor = janitor
            janitor.enter()
        if self.limits.revalidate_s:
            self._identity = Identity(self)
            self._identity.check_later()
        if self.node is not None:
            if self._direct:
                self.mailbox.reader = self
            # Under test a relay's exception is to come out of the application, so each message comes here.
            if not self.under_test:
                self.mailbox.relays = self._relays
                self.outlet.mailbox = self.mailbox if self._relays is not None else None

    async def _open_more(self) -> None:
        layer = self.consumer.channel_layer
        if self.node is None and layer is not None:
            self.consumer.channel_name = await layer.new_channel()
            self._pump = Pump(layer, self.consumer.channel_name, self.mailbox, self.broken)
        if self.node is not None and self.consumer.user_channel and self.mailbox.user is not None:
            await self.node.join(user_topic(self.mailbox.user), self.mailbox)

    async def _close(self) -> None:
        self._stop_grace()
        self.outlet.end()
        self.mailbox.reader = self.mailbox.relays = self.mailbox.on_recheck = self.mailbox.info_of = None
        if self._stepped is not None:
            self._stepped.coroutine.close()
        if self.node is not None:
            self.node.close(self.mailbox)
        if self._janitor is not None:
            self._janitor.leave()
        self.scope.pop("antiphon.connection", None)
        if self.consumer._antiphon_streams:
            (self.scope.get("state") or {}).pop("antiphon.connection", None)
        if self._begun and self.kind == "http":
            await self._within_grace(self.consumer._antiphon_stop())
            await self._within_grace(self.consumer._antiphon_goodbye())
        tasks = [self._reader]
        if self._ending is not None:
            tasks.append(self._ending.stop())
        if self._identity is not None:
            tasks.append(self._identity.stop())
        for task in tasks:
            if task is not None:
                task.cancel()
        for task in tasks:
            if task is not None:
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
        if self._pump is not None:
            await self._pump.stop()
        for group in self.consumer._antiphon_groups or ():
            with contextlib.suppress(Exception):
                await self.consumer.channel_layer.group_discard(group, self.consumer.channel_name)

    async def _within_grace(self, call: Coroutine[Any, Any, None]) -> None:
        try:
            async with asyncio.timeout(self.limits.grace_s or LAST_GRACE_S):
                await call
        except Exception as exc:
            logger.error("%s did not end well: %r", type(self.consumer).__qualname__, exc, exc_info=exc)

    async def _last_words(self, grace_s: float | None) -> None:
        """Run the disconnect handler if the server never had the chance to call for it."""
        if self.disconnected or not self._begun or self.kind != "websocket":
            return
        self.gone = True
        self.outlet.end()
        self._leave_groups()
        with contextlib.suppress(StopConsumer, TimeoutError):
            try:
                async with asyncio.timeout(grace_s):
                    await self._client_event({"type": "websocket.disconnect", "code": 1006})
            except (StopConsumer, TimeoutError):
                raise
            except Exception as exc:
                logger.error("%s.disconnect() raised: %r", type(self.consumer).__qualname__, exc, exc_info=exc)

    @property
    def close_protocol(self) -> str:
        """Whose close codes the client knows."""
        return self.outlet.protocol

    # What comes in beside messages

    def client_event(self, event: Event) -> None:
        """Take an event that the server pushes."""
        if not self.gone:
            self._inbox_now().take(event)

    def put_event(self, event: Event) -> None:
        """Put an event of our own in line behind the client's."""
        self._inbox_now().put(event)

    def _inbox_now(self) -> Inbox:
        if self._inbox is None:
            self._inbox = Inbox(self, self._socket)
        return self._inbox

    def client_gone(self, event: Event) -> None:
        """Learn that the client has gone, or is taken to be."""
        if self.gone:
            return
        self.gone = True
        if event["type"] == "websocket.disconnect":
            event = {**event, "code": normal_disconnect(event.get("code"))}
        self.outlet.end()
        self._leave_groups()
        self.put_event(event)
        if self.busy is not None:
            self._start_grace()

    def relay_by(self, own: Relays, shared: Relays | None) -> None:
        """Have messages handled by ``own``, which may be of this connection alone; before ``accept``.

        ``shared``: what the hub may ask once for all connections that have it. It says None where one's own must be
        asked; None: always.
        """
        self._relays = own
        if self.node is not None and not self.under_test:
            self.mailbox.relays = shared
            self.outlet.mailbox = self.mailbox if shared is not None else None
            if shared is None:
                self.mailbox.socket = None

    def broken(self, exc: BaseException) -> None:
        """Learn that nothing more can come, because of ``exc``."""
        self._error = exc
        self.call()

    def _leave_groups(self) -> None:
        if self.node is not None:
            self.node.leave_all(self.mailbox)

    def _asked_to_close(self, reason: str) -> None:
        self._attention = True
        if self._inbox is not None:
            self._inbox.make_space()
            if reason in _ABANDONING:
                self._inbox.forget_frames()
        if not self.gone:
            self._ending = Ending(self, reason)

    async def appeared(self) -> None:
        """Wait a moment until it is known that this connection is in the group it has joined."""
        if self.node is not None:
            await self.node.appeared(self.mailbox)

    def recheck(self) -> None:
        """Look again at what the user may do: something about them has changed."""
        if self.gone:
            return
        framework.current().forget_permissions(self.scope.get("user"))
        if self._identity is None:
            self._identity = Identity(self)
        self._identity.check_now()
        self.consumer._antiphon_recheck()

    def identify(self) -> None:
        """Look again at whose connection this is, soon; ``login`` and ``logout`` call it, from whichever thread."""
        self.mailbox.loop.call_soon_threadsafe(self._identify)

    def _identify(self) -> None:
        if self._identity is None:
            self._identity = Identity(self)
        self._identity.look_again()
