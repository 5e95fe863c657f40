"""Runs a connection's handlers, one at a time, in its own context: messages from the layer, events of the client.

Where the hub has delivered a message to a connection that waits, its handler begins right there (``step``); what must
wait is finished by the connection's task. Knows nothing of how a connection begins and ends: that is ``connection.py``.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from ..envelope import Envelope
from ..exceptions import StopConsumer
from ..layer.mailbox import NOTHING, Failed, Mailbox, Relays
from ..layer.node import Node
from ..layer.questions import Question
from ..types import Event, Position, Scope
from .failures import awaiting, failed, refused
from .grace import Grace
from .handlers import Refused, known_handlers, layer_handler, log_refused
from .identity import Identity, over_user_limit
from .inbox import Inbox
from .limits import Limits
from .outlet import CONNECTING, Outlet
from .steps import Steps, first_step
from .threads import Janitor, run_sync

if TYPE_CHECKING:
    from .base import AsyncConsumer

__all__ = ["Handling"]

logger = logging.getLogger("antiphon.consumer")

# What a message that no handler may take raises; the last two come of a message that is none.
_REFUSALS = (ValueError, KeyError, TypeError)


class Handling:
    """What runs for one connection, and what it needs for that."""

    __slots__ = (
        "_attention",
        "_begun",
        "_direct",
        "_error",
        "_grace",
        "_identity",
        "_inbox",
        "_janitor",
        "_known",
        "_relays",
        "_stepped",
        "busy",
        "consumer",
        "context",
        "disconnected",
        "gone",
        "limits",
        "mailbox",
        "node",
        "outlet",
        "positions",
        "scope",
        "task",
        "under_test",
    )

    mailbox: Mailbox

    def __init__(self, consumer: AsyncConsumer, scope: Scope, outlet: Outlet) -> None:
        self.consumer = consumer
        self.scope = scope
        self.outlet = outlet
        self.under_test = bool(scope.get("antiphon.test"))
        self.limits: Limits = Limits.of(consumer)
        self.context: Context = copy_context()  # the handlers', whoever takes their steps
        self.task: asyncio.Task[Any] | None = None
        self.node: Node | None = None
        self.busy: str | None = None  # the handler that runs
        self.gone = False  # the client is
        self.disconnected = False  # and its handler has been called
        self._attention = False  # there is more to see to than the mailbox
        self._begun = False  # a handler was called
        self._known = known_handlers(type(consumer))
        self._relays: Relays | None = type(consumer)._antiphon_relays
        # A class that overrides dispatch() sees every message; a synchronous one needs a thread. Neither can step.
        self._direct = not consumer._sync and type(consumer).dispatch is type(consumer)._antiphon_stock
        self._janitor: Janitor | None = None
        # What most connections have only now and then, or never.
        self._inbox: Inbox | None = None
        self._stepped: Steps | None = None  # a handler whose first step was taken, and left to be finished
        self._error: BaseException | None = None  # of whatever brings events or messages
        self._grace: Grace | None = None
        self._identity: Identity | None = None
        # Of the last message handled, by group: where a group has a history.
        self.positions: dict[str, Position] | None = None

    @property
    def kind(self) -> str:
        """The type of the scope."""
        kind: str = self.scope.get("type", "")
        return kind

    def call(self) -> None:
        """Have the main task look at more than its mailbox."""
        self._attention = True
        self.mailbox.wake()

    def note(self, group: str | None, position: Position) -> None:
        """Remember how far this connection has come in a group's history."""
        if self.positions is None:
            self.positions = {}
        if group is not None:
            self.positions[group] = position

    # Messages

    def step(self, envelope: Envelope) -> None:
        """Begin to handle a message, in the hub's stack, while the main task waits; that finishes what must wait.

        The hot path of the whole library. Never raises.
        """
        if type(envelope) is Question:
            self._leave(Steps(self.context, self._answer(envelope)))
            return
        if self._relays is not None and self._step_relay(self._relays, envelope):
            return
        try:
            name, message = self._resolve(envelope)
        except _REFUSALS as exc:
            try:
                refused(self, envelope, exc)
            except Exception as raised:  # under test: it is to come out of the application
                self._leave(Steps(self.context, _raising(raised)))
            return
        self.busy = name
        try:
            coroutine = getattr(self.consumer, name)(message)
            if not hasattr(coroutine, "send"):
                coroutine = awaiting(coroutine)
            yielded = first_step(self.mailbox.loop, self.task, self.context, coroutine)  # type: ignore[arg-type]
        except StopIteration:
            self.busy = None
            if self._janitor is not None:
                self._janitor.touched = True
        except BaseException as exc:
            self._leave(Steps(self.context, _raising(exc)))
        else:
            self._leave(Steps(self.context, coroutine, yielded))

    def _step_relay(self, relays: Relays, envelope: Envelope) -> bool:
        """Begin to send what a relay has for all; False: this message is for a handler."""
        outcome = self._relayed(relays, envelope)
        if outcome is None:
            return False
        if outcome is NOTHING:
            return True
        self.busy = "relay"
        coroutine = self.outlet.relay(outcome)
        try:
            yielded = first_step(self.mailbox.loop, self.task, self.context, coroutine)  # type: ignore[arg-type]
        except StopIteration:
            self.busy = None
        except BaseException as exc:
            self._leave(Steps(self.context, _raising(exc)))
        else:
            self._leave(Steps(self.context, coroutine, yielded))
        return True

    def _leave(self, steps: Steps) -> None:
        self._stepped = steps
        self.call()

    def _resolve(self, envelope: Envelope) -> tuple[str, Any]:
        """Return the handler's name and the message. Raises one of _REFUSALS where nothing may or can take it."""
        if self.node is not None and envelope is self.node.hub.sample:
            self.node.hub.took(envelope)
        if envelope.position is not None:
            self.note(envelope.group, envelope.position)
        message = envelope.shared_message() if self.consumer.shares_messages else envelope.message()
        kind = message["type"]
        return (self._known.get(kind) or layer_handler(self.consumer, message) if self._direct else kind), message

    def _relayed(self, relays: Relays, envelope: Envelope) -> Any:
        """Return what a relay has for all, or NOTHING where that is all there is to do; None: it is for a handler."""
        outcome, node = relays.outcome(envelope), self.node
        if outcome is None or outcome is NOTHING:
            return outcome
        if node is not None and envelope is node.hub.sample:
            node.hub.took(envelope)
        if isinstance(outcome, Failed):
            if self.under_test:
                self._leave(Steps(self.context, _raising(outcome.exc)))
            elif node is not None:
                node.hub.relay_failed(envelope, relays.owner)
            return NOTHING
        if self.outlet.state == CONNECTING and self.outlet.held >= self.mailbox.capacity:
            if node is not None:
                node.hub.drop("over_capacity", envelope, self.mailbox)
            return NOTHING
        return outcome

    async def _answer(self, question: Question) -> None:
        """Give what a handler returns to whoever asked; what it raises ends this connection as always."""
        try:
            message = question.message()
            name = layer_handler(self.consumer, message)
        except _REFUSALS as exc:
            question.fail(str(exc))
            return
        handler = getattr(self.consumer, name)
        try:
            if self.consumer._sync:
                value = await run_sync(handler, message, under_test=self.under_test)
            else:
                value = await awaiting(handler(message))
        except BaseException as exc:
            question.fail(f"{type(self.consumer).__qualname__}.{name} raised {exc!r:.200}")
            raise
        try:
            question.take(value)
        except TypeError as exc:
            question.fail(f"{type(self.consumer).__qualname__}.{name} returned what cannot travel: {exc}")

    async def _layer_event(self, envelope: Envelope) -> None:
        if type(envelope) is Question:
            await self._handle(envelope, "ask", Steps(self.context, self._answer(envelope)))
            return
        relayed = None if self._relays is None else self._relayed(self._relays, envelope)
        if relayed is not None:
            if relayed is not NOTHING:
                await self._handle(envelope, "relay", Steps(self.context, self.outlet.relay(relayed)))
            return
        try:
            name, message = self._resolve(envelope)
        except _REFUSALS as exc:
            refused(self, envelope, exc)
            return
        consumer = self.consumer
        coroutine = _calling(consumer, name, message) if self._direct else consumer._antiphon_dispatch(message)
        await self._handle(envelope, name, Steps(self.context, coroutine))

    async def _handle(self, envelope: Envelope | None, name: str, steps: Steps) -> None:
        self.busy = name
        try:
            await steps
        except StopConsumer:
            raise
        except Refused as exc:
            if envelope is None:
                raise
            refused(self, envelope, exc)
        except asyncio.CancelledError:
            if not self.ran_out(name):
                raise
        except Exception as exc:
            await failed(self, exc, str(name).replace(".", "_"))
        self.busy = None
        if self._grace is not None:
            self._stop_grace()

    async def _attend(self) -> None:
        """See to what is rarer than a message from the layer: one frame of the client, a recheck, the reader's end."""
        if self._stepped is not None:  # before all else: a handler is in the middle of its work
            steps, self._stepped = self._stepped, None
            await self._handle(None, self.busy or "", steps)
        if self._identity is not None and self._identity.due:
            await self._identity.check()  # then: a client that never pauses must not outrun it
        inbox = self._inbox
        if inbox:
            event = inbox.pop()
            if self.kind != "channel":
                inbox.make_space()  # before it is handled, too: the disconnect may be what there was no room for
            await self._client_event(event)
            inbox.make_space()
        elif self._error is not None and not self.mailbox.queue:
            raise self._error
        if inbox is not None and inbox.forgettable:
            self._inbox = None
        due = self._identity is not None and self._identity.due
        self._attention = bool(self._inbox) or due or self._error is not None

    async def _client_event(self, event: Event) -> None:
        kind = event["type"]
        if kind == "websocket.connect" and over_user_limit(self):
            if self.outlet.protocol != "plain":  # such a client takes a denied handshake for a reason to try again
                await self.outlet.send({"type": "websocket.accept", "subprotocol": None})
            await self.outlet.close("too_many_connections")
            raise StopConsumer  # connect() never ran, so disconnect() must not either
        if kind in ("websocket.disconnect", "http.disconnect"):
            self.disconnected = True
        self._begun = True
        self.busy = kind
        if self.gone:
            self._start_grace()
        try:
            if self.kind == "channel":
                await self._worker_event(event)
            else:
                await Steps(self.context, self.consumer.dispatch(event))
        except StopConsumer:
            raise
        except asyncio.CancelledError:
            if not self.ran_out(kind):
                raise
            if self.disconnected:
                raise StopConsumer from None  # cut off before it could say so itself
        except Exception as exc:
            await failed(self, exc, "handle" if kind == "http.handled" else kind)
        finally:
            self.busy = None
            self._stop_grace()

    async def _worker_event(self, message: Event) -> None:
        """Handle a message of a worker channel: anyone who can send may have sent it, so the layer's rules hold."""
        try:
            await Steps(self.context, self.consumer._antiphon_dispatch(message))
        except Refused as exc:
            if self.under_test:
                raise
            log_refused(type(self.consumer), message, exc)

    # Patience

    def _start_grace(self) -> None:
        grace_s = self.limits.grace_s
        if grace_s is not None and self._grace is None and not self.consumer._sync and self.task is not None:
            self._grace = Grace(self.mailbox.loop, self.task, grace_s, lambda: self.busy is not None)

    def _stop_grace(self) -> None:
        if self._grace is not None:
            self._grace.stop()
            self._grace = None

    def ran_out(self, handler: str) -> bool:
        """Say whether a cancellation is the one we asked for; anybody else's goes on."""
        if self._grace is None or not self._grace.is_ours():
            return False
        logger.warning(
            "%s: %s was cancelled, %.3g s after its client had gone (disconnect_grace_s)",
            type(self.consumer).__qualname__,
            handler,
            self.limits.grace_s,
        )
        if self._inbox is not None:
            self._inbox.forget_frames()  # those before the disconnect had their time too
        return True


async def _raising(exc: BaseException) -> None:
    raise exc


async def _calling(consumer: AsyncConsumer, name: str, message: Any) -> None:
    await getattr(consumer, name)(message)
