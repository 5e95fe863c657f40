"""One connection: two tasks and what passes between them. Knows consumers only by what ``base.py`` defines.

The *reader* awaits ASGI ``receive`` and puts the client's events into a bounded inbox, so a disconnect is seen while
a handler runs. The *main* task, which the server started, takes in turn from the inbox and from the mailbox, and runs
one handler at a time in the connection's own context. Neither creates a task or visits a thread for a message.

How a connection ends, whatever ends it:

    client gone      groups left at once -> earlier frames handled -> (grace) handler cancelled -> disconnect()
    asked to close   (slow, revoked, limits, errors) close frame at once -> as above, once the server reports it, or
                     after CLOSE_WAIT_S if it never does
    StopConsumer     the main task ends
    task cancelled   disconnect() runs, for at most the grace, and the cancellation goes on
    always           the mailbox is closed and its groups are left, even if disconnect() raised
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Coroutine
from contextvars import copy_context
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .. import framework
from ..envelope import Envelope
from ..exceptions import StopConsumer
from ..layer.layer import ChannelLayer
from ..layer.mailbox import Mailbox
from ..layer.node import Node
from ..layer.registry import get_channel_layer
from ..names import user_topic
from ..types import Event, Receive, Scope, Send
from ..wire.codes import close_code, normal_disconnect
from .foreign import Pump
from .grace import Grace
from .handlers import Refused, known_handlers, layer_handler, log_refused
from .limits import Limits, RateLimit
from .outlet import OPEN, Outlet
from .steps import Steps, first_step
from .threads import Janitor, run_sync

if TYPE_CHECKING:
    from .base import AsyncConsumer

__all__ = ["Connection"]

logger = logging.getLogger("antiphon.consumer")

# How long a server may take to report the end of a connection that we closed.
CLOSE_WAIT_S = 10.0
# A disconnect handler without a grace of its own, while the task is being cancelled.
LAST_GRACE_S = 10.0

# Reasons for which what the client sent before is not handled either: its handlers failed, or it has no right to.
_ABANDONING = frozenset(("error", "revoked", "unauthenticated"))

_NOTHING: list[Envelope] = []

_janitors: WeakKeyDictionary[asyncio.AbstractEventLoop, Janitor] = WeakKeyDictionary()


class Connection:
    """The life of one consumer instance."""

    __slots__ = (
        "_attention",
        "_begun",
        "_closer",
        "_context",
        "_direct",
        "_disconnected",
        "_frame_bytes",
        "_frames",
        "_grace",
        "_janitor",
        "_joiner",
        "_known",
        "_limits",
        "_pump",
        "_rate",
        "_reader",
        "_reader_error",
        "_recheck",
        "_recheck_due",
        "_space",
        "_stepped",
        "_waiting_close",
        "busy",
        "consumer",
        "gone",
        "layer",
        "mailbox",
        "node",
        "outlet",
        "receive",
        "scope",
        "task",
        "under_test",
    )

    def __init__(self, consumer: AsyncConsumer, scope: Scope, receive: Receive, send: Send) -> None:
        self.consumer = consumer
        self.scope = scope
        self.receive = receive
        self.outlet = Outlet(send, scope.get("type", ""))
        self.under_test = bool(scope.get("antiphon.test"))
        self.task: asyncio.Task[Any] | None = None
        self.layer: Any = None
        self.node: Node | None = None
        self.busy: str | None = None  # the handler that runs
        self.gone = False  # the client is
        self._attention = False  # there is more to see to than the mailbox
        self._limits: Limits = Limits.of(consumer)
        self._rate = RateLimit(*self._limits.rate) if self._limits.rate else None
        # There only while frames wait: most connections only listen.
        self._frames: list[tuple[Event, int]] | None = None
        self._frame_bytes = 0
        self._space: asyncio.Future[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._closer: asyncio.Task[None] | None = None
        self._joiner: asyncio.Task[None] | None = None
        self._reader_error: BaseException | None = None
        self._pump: Pump | None = None
        self._grace: Grace | None = None  # there only once the client has gone
        self._recheck: asyncio.TimerHandle | None = None
        self._recheck_due = False
        self._waiting_close: asyncio.TimerHandle | None = None
        self._begun = False  # a handler was called
        self._disconnected = False
        self._janitor: Janitor | None = None
        self._stepped: Steps | None = None  # a handler whose first step was taken, and left to be finished
        self._direct = False
        self._known = known_handlers(type(consumer))
        self._context = copy_context()  # the handlers', whoever takes their steps
        self.mailbox: Mailbox

    def __repr__(self) -> str:
        busy = f" in {self.busy}()" if self.busy else ""
        return f"<Connection of {type(self.consumer).__qualname__}{busy} {self.outlet!r}>"

    # Beginning and end

    async def run(self) -> None:
        """Serve the connection to its end."""
        loop = asyncio.get_running_loop()
        self.task = asyncio.current_task()
        self._open(loop)
        try:
            await self._open_foreign()
            self._reader = loop.create_task(self._read())
            await self._serve()
        except StopConsumer:
            pass
        except asyncio.CancelledError:
            await self._last_words(self._limits.grace_s or LAST_GRACE_S)
            raise
        except BaseException:
            await self._last_words(None)
            raise
        finally:
            await self._close()

    def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        consumer, revoked = self.consumer, None
        layer = self.layer = consumer.channel_layer = get_channel_layer(consumer.channel_layer_alias)
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
        if revoked is not None:
            self.mailbox.ask_close(revoked)
        self.scope["antiphon.connection"] = self
        if not self.under_test and not consumer._sync:
            janitor = _janitors.get(loop)
            if janitor is None:
                janitor = _janitors[loop] = Janitor(loop)
            self._janitor = janitor
            janitor.enter()
        if self._limits.revalidate_s:
            self._recheck_later()

    async def _open_foreign(self) -> None:
        if self.node is None and self.layer is not None:
            self.consumer.channel_name = await self.layer.new_channel()
            self._pump = Pump(self.layer, self.consumer.channel_name, self.mailbox, self._broken)
        if self.node is not None and self.consumer.user_channel and self.mailbox.user is not None:
            await self.node.join(user_topic(self.mailbox.user), self.mailbox)

    async def _close(self) -> None:
        self._stop_grace()
        for timer in (self._recheck, self._waiting_close):
            if timer is not None:
                timer.cancel()
        self.outlet.end()
        self.mailbox.reader = None
        if self._stepped is not None:
            self._stepped.coroutine.close()
        if self.node is not None:
            self.node.close(self.mailbox)
        if self._janitor is not None:
            self._janitor.leave()
        self.scope.pop("antiphon.connection", None)
        if self._begun and self.scope.get("type") == "http":
            await self._within_grace(self.consumer._antiphon_stop())
            await self._within_grace(self.consumer._antiphon_goodbye())
        tasks = [task for task in (self._reader, self._closer, self._joiner) if task is not None]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
        if self._pump is not None:
            await self._pump.stop()
        for group in self.consumer._antiphon_groups or ():
            with contextlib.suppress(Exception):
                await self.layer.group_discard(group, self.consumer.channel_name)

    async def _within_grace(self, call: Coroutine[Any, Any, None]) -> None:
        try:
            async with asyncio.timeout(self._limits.grace_s or LAST_GRACE_S):
                await call
        except Exception as exc:
            logger.error("%s did not end well: %r", type(self.consumer).__qualname__, exc, exc_info=exc)

    async def _last_words(self, grace_s: float | None) -> None:
        """Run the disconnect handler if the server never had the chance to call for it."""
        if self._disconnected or not self._begun or self.scope.get("type") != "websocket":
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

    # The reader

    async def _read(self) -> None:
        receive, limits = self.receive, self._limits
        try:
            while True:
                event = await receive()
                kind = event["type"]
                size = 0
                if kind == "websocket.receive":
                    text = event.get("text")
                    # Characters, not encoded bytes: measuring those would encode the frame for its length.
                    size = len(text if text is not None else event.get("bytes") or b"")
                    if size > limits.message_bytes:
                        self.mailbox.ask_close("too_big")
                        continue
                    if self._rate is not None and not self._rate.take():
                        self.mailbox.ask_close("rate_limit")
                        continue
                    if self.mailbox.closing is not None:
                        continue
                elif kind == "http.request":
                    size = len(event.get("body") or b"")
                elif kind in ("websocket.disconnect", "http.disconnect"):
                    self._client_gone(event)
                    return
                self._put(event, size)
                while self._full(limits):
                    self._space = asyncio.get_running_loop().create_future()
                    await self._space
        except asyncio.CancelledError:
            raise
        except BaseException as exc:
            self._broken(exc)

    def _broken(self, exc: BaseException) -> None:
        self._reader_error = exc
        self._call()

    def _full(self, limits: Limits) -> bool:
        if self.mailbox.closing is not None:
            return False  # nothing more is kept, and the client's end must be seen
        waiting = len(self._frames or ())
        if self.scope.get("type") == "channel":
            return waiting > 0  # what waits here, another worker could have taken
        return waiting >= limits.frames or (waiting > 0 and self._frame_bytes >= limits.bytes)

    def _make_space(self) -> None:
        if self._space is not None and not self._space.done():
            self._space.set_result(None)

    def put_event(self, event: Event) -> None:
        """Put an event of our own in line behind the client's."""
        self._put(event, 0)

    def _put(self, event: Event, size: int) -> None:
        if self._frames is None:
            self._frames = []
        self._frames.append((event, size))
        self._frame_bytes += size
        self._call()

    def _client_gone(self, event: Event) -> None:
        if self.gone:
            return
        self.gone = True
        if event["type"] == "websocket.disconnect":
            event = {**event, "code": normal_disconnect(event.get("code"))}
        self.outlet.end()
        self._leave_groups()
        self._put(event, 0)
        if self.busy is not None:
            self._start_grace()

    def _leave_groups(self) -> None:
        if self.node is not None:
            self.node.leave_all(self.mailbox)

    # The main task

    async def _serve(self) -> None:
        consumer, mailbox, queue = self.consumer, self.mailbox, self.mailbox.queue
        hub = self.node.hub if self.node is not None else None
        create_future = mailbox.loop.create_future
        # A class that overrides dispatch() sees every message; a synchronous one needs a thread. Neither can step.
        self._direct = not consumer._sync and type(consumer).dispatch is type(consumer)._antiphon_stock
        if self._direct and hub is not None:
            mailbox.reader = self
        while True:
            if self._attention:
                await self._attend()
                # Once the end is near, what still waits stays where it is, and is counted when the mailbox is closed.
                if self.gone or mailbox.closing is not None:
                    queue = _NOTHING
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
            future = mailbox.waiter = create_future()
            try:
                await future
            except asyncio.CancelledError as exc:
                if self._stepped is None:
                    raise
                self._stepped.thrown = exc  # meant for the handler that runs on our behalf
            if self._janitor is not None:
                self._janitor.touched = True

    def step(self, envelope: Envelope) -> None:
        """Begin to handle a message, in the hub's stack, while the main task waits; that finishes what must wait.

        The hot path of the whole library. Never raises.
        """
        try:
            name, message = self._resolve(envelope)
        except _REFUSALS as exc:
            try:
                self._refused(envelope, exc)
            except Exception as raised:  # under test: it is to come out of the application
                self._leave(Steps(self._context, _raising(raised)))
            return
        self.busy = name
        try:
            coroutine = getattr(self.consumer, name)(message)
            if not hasattr(coroutine, "send"):
                coroutine = _awaiting(coroutine)
            yielded = first_step(self.mailbox.loop, self.task, self._context, coroutine)  # type: ignore[arg-type]
        except StopIteration:
            self.busy = None
            if self._janitor is not None:
                self._janitor.touched = True
        except BaseException as exc:
            self._leave(Steps(self._context, _raising(exc)))
        else:
            self._leave(Steps(self._context, coroutine, yielded))

    def _leave(self, steps: Steps) -> None:
        self._stepped = steps
        self._call()

    def _resolve(self, envelope: Envelope) -> tuple[str, Any]:
        """Return the handler's name and the message. Raises one of _REFUSALS where nothing may or can take it."""
        if self.node is not None and envelope is self.node.hub.sample:
            self.node.hub.took(envelope)
        message = envelope.shared_message() if self.consumer.shares_messages else envelope.message()
        kind = message["type"]
        return (self._known.get(kind) or layer_handler(self.consumer, message) if self._direct else kind), message

    async def _layer_event(self, envelope: Envelope) -> None:
        try:
            name, message = self._resolve(envelope)
        except _REFUSALS as exc:
            self._refused(envelope, exc)
            return
        consumer = self.consumer
        coroutine = _calling(consumer, name, message) if self._direct else consumer._antiphon_dispatch(message)
        await self._handle(envelope, name, Steps(self._context, coroutine))

    async def _handle(self, envelope: Envelope | None, name: str, steps: Steps) -> None:
        self.busy = name
        try:
            await steps
        except StopConsumer:
            raise
        except Refused as exc:
            if envelope is None:
                raise
            self._refused(envelope, exc)
        except asyncio.CancelledError:
            if not self._ran_out(name):
                raise
        except Exception as exc:
            await self._failed(exc, str(name).replace(".", "_"))
        self.busy = None
        if self._grace is not None:
            self._stop_grace()

    async def _attend(self) -> None:
        """See to what is rarer than a message from the layer: one frame of the client, a recheck, the reader's end."""
        if self._stepped is not None:  # before all else: a handler is in the middle of its work
            steps, self._stepped = self._stepped, None
            await self._handle(None, self.busy or "", steps)
        if self._recheck_due:  # then: a client that never pauses must not outrun it
            await self._revalidate()
        if self._frames:
            event, size = self._frames.pop(0)
            self._frame_bytes -= size
            if self.scope.get("type") != "channel":
                self._make_space()  # before it is handled, too: the disconnect may be what there was no room for
            await self._client_event(event)
            self._make_space()
        elif self._reader_error is not None and not self.mailbox.queue:
            raise self._reader_error
        if not self._frames:
            self._frames = None
        self._attention = self._frames is not None or self._recheck_due or self._reader_error is not None

    def _call(self) -> None:
        """Have the main task look at more than its mailbox."""
        self._attention = True
        self.mailbox.wake()

    async def _client_event(self, event: Event) -> None:
        kind = event["type"]
        if kind == "websocket.connect" and self._over_user_limit():
            await self.outlet.close("too_many_connections")
            raise StopConsumer  # connect() never ran, so disconnect() must not either
        if kind in ("websocket.disconnect", "http.disconnect"):
            self._disconnected = True
        self._begun = True
        self.busy = kind
        if self.gone:
            self._start_grace()
        try:
            if self.scope.get("type") == "channel":
                await self._worker_event(event)
            else:
                await Steps(self._context, self.consumer.dispatch(event))
        except StopConsumer:
            raise
        except asyncio.CancelledError:
            if not self._ran_out(kind):
                raise
            if self._disconnected:
                raise StopConsumer from None  # cut off before it could say so itself
        except Exception as exc:
            await self._failed(exc, "handle" if kind == "http.handled" else kind)
        finally:
            self.busy = None
            self._stop_grace()

    async def _worker_event(self, message: Event) -> None:
        """Handle a message of a worker channel: anyone who can send may have sent it, so the layer's rules hold."""
        try:
            await Steps(self._context, self.consumer._antiphon_dispatch(message))
        except Refused as exc:
            if self.under_test:
                raise
            log_refused(type(self.consumer), message, exc)

    def _refused(self, envelope: Envelope, exc: Exception) -> None:
        message: Any = None
        try:
            message = envelope.message()
            if not isinstance(exc, ValueError):  # no type, or no message at all: say which
                layer_handler(self.consumer, message)
        except ValueError as second:
            if isinstance(exc, ValueError):
                # Bytes that no codec of ours made: counted, logged by the hub's rules, never seen by a handler.
                if self.node is not None:
                    self.node.hub.refuse_body(envelope)
                return
            exc = second
        if self.under_test:
            raise exc
        log_refused(type(self.consumer), message, exc)

    async def _failed(self, exc: Exception, handler: str) -> None:
        """Give a handler's exception to ``on_error``; unless it says otherwise, the connection ends."""
        # An application that does not serve a kind of scope (lifespan, say) tells the server by raising.
        if self.under_test or self.scope.get("type") not in ("websocket", "http", "channel"):
            raise exc
        if getattr(exc, "antiphon_bad_frame", False):
            # The client's mistake, not the application's: no traceback, and no flood of them.
            logger.info("%s: a frame of the client is not JSON: %s", type(self.consumer).__qualname__, exc)
            self.mailbox.ask_close("bad_frame")
            return
        try:
            keep = await self._on_error(exc, handler)
        except asyncio.CancelledError:
            if not self._ran_out("on_error"):
                raise
            keep = False
        except Exception as second:
            logger.exception("%s.on_error() raised", type(self.consumer).__qualname__, exc_info=second)
            keep = False
        if keep:
            return
        if self._disconnected:
            raise StopConsumer
        if self.scope.get("type") == "http":
            await self._http_error()
            raise StopConsumer
        if self.scope.get("type") == "channel":
            delivery = self.scope.get("antiphon.delivery")
            if delivery is not None:
                delivery.failed = True  # the worker gives the message back
            return
        self.mailbox.ask_close("error")

    async def _on_error(self, exc: Exception, handler: str) -> Any:
        consumer = self.consumer
        if consumer._sync and not iscoroutinefunction(consumer.on_error):
            # As a handler: it may send, and ask the database.
            return await run_sync(consumer.on_error, exc, handler, under_test=self.under_test)
        keep = self._context.run(consumer.on_error, exc, handler)
        return await Steps(self._context, _awaiting(keep)) if isinstance(keep, Awaitable) else keep

    async def _http_error(self) -> None:
        if not self.outlet.started and self.outlet.state == OPEN:
            body = b"Internal Server Error"
            headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
            await self.outlet.send({"type": "http.response.start", "status": 500, "headers": headers})
            await self.outlet.send({"type": "http.response.body", "body": body})

    # Patience

    def _start_grace(self) -> None:
        grace_s = self._limits.grace_s
        if grace_s is not None and self._grace is None and not self.consumer._sync and self.task is not None:
            self._grace = Grace(self.mailbox.loop, self.task, grace_s, lambda: self.busy is not None)

    def _stop_grace(self) -> None:
        if self._grace is not None:
            self._grace.stop()
            self._grace = None

    def _ran_out(self, handler: str) -> bool:
        """Say whether a cancellation is the one we asked for; anybody else's goes on."""
        if self._grace is None or not self._grace.is_ours():
            return False
        logger.warning(
            "%s: %s was cancelled, %.3g s after its client had gone (disconnect_grace_s)",
            type(self.consumer).__qualname__,
            handler,
            self._limits.grace_s,
        )
        self._forget_frames()  # those before the disconnect had their time too
        return True

    def _forget_frames(self) -> None:
        if self._frames:
            self._frames = [pair for pair in self._frames if pair[0]["type"] != "websocket.receive"]
            self._frame_bytes = sum(size for _, size in self._frames)

    # Ending it from this side

    def _asked_to_close(self, reason: str) -> None:
        self._attention = True
        self._make_space()
        if reason in _ABANDONING:
            self._forget_frames()
        if not self.gone:
            # Kept: a loop holds its tasks weakly, and this one may wait long for a client that does not read.
            self._closer = self.mailbox.loop.create_task(self._close_now(reason))

    async def _close_now(self, reason: str) -> None:
        if self._waiting_close is None:
            self._waiting_close = self.mailbox.loop.call_later(CLOSE_WAIT_S, self._assume_gone, reason)
        if self.scope.get("type") == "websocket":
            await self.outlet.close(reason)
        elif self.scope.get("type") == "http":
            self._client_gone({"type": "http.disconnect"})
        else:
            self._broken(StopConsumer())

    def _assume_gone(self, reason: str) -> None:
        self._client_gone({"type": "websocket.disconnect", "code": close_code(reason), "reason": reason})

    # Identity

    def identify(self) -> None:
        """Look again at whose connection this is, soon; ``login`` and ``logout`` call it, from whichever thread."""
        self.mailbox.loop.call_soon_threadsafe(self._identify)

    def _identify(self) -> None:
        node, mailbox, before = self.node, self.mailbox, self.mailbox.user
        if node is None or self.gone:
            return
        node.hub.identify(mailbox, *framework.current().identity(self.scope))
        if self.consumer.user_channel and mailbox.user != before:
            if before is not None:
                node.leave(user_topic(before), mailbox)
            if mailbox.user is not None:
                self._joiner = mailbox.loop.create_task(node.join(user_topic(mailbox.user), mailbox))

    def _over_user_limit(self) -> bool:
        limit, user = self._limits.per_user, self.mailbox.user
        if limit is None or user is None or self.node is None:
            return False
        # The newest is refused: whoever is connected stays so.
        return len(self.node.hub.by_identity("user", user)) > limit

    def _recheck_later(self) -> None:
        self._recheck = self.mailbox.loop.call_later(self._limits.revalidate_s or 0.0, self._recheck_now)

    def _recheck_now(self) -> None:
        self._recheck_due = True
        self._call()

    async def _revalidate(self) -> None:
        self._recheck_due = False
        try:
            reason = await framework.current().revalidate(self.scope)
        except Exception:
            # Not knowing is no reason to throw people out; the next check is due in its turn.
            logger.exception("Could not check session and user of a %s again", type(self.consumer).__qualname__)
            reason = None
        if reason is not None:
            self.mailbox.ask_close(reason)
        else:
            self._recheck_later()


# What a message that no handler may take raises; the last two come of a message that is none.
_REFUSALS = (ValueError, KeyError, TypeError)


async def _raising(exc: BaseException) -> None:
    raise exc


async def _awaiting(value: Any) -> Any:
    return await value


async def _calling(consumer: AsyncConsumer, name: str, message: Any) -> None:
    await getattr(consumer, name)(message)
