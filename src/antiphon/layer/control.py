"""Calls between nodes: one node's questions to others, and its answers to theirs. Knows no layer and no engine of a kind.

A call is a control envelope on a topic, its answer one on the caller's inbox:

    {"call": name, "id": int, "from": node, "args": {…}}
    {"answer": id, "node": node, "value": …}       {"answer": id, "node": node, "error": text}

An answer that is a list travels in as many parts as its size needs: each has "part", counted from 0, and "last".
Whoever asks many nodes knows from the receipt of the publish how many there are, and so whether all have answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from ..codec import encode
from ..envelope import HeadedEnvelope
from ..exceptions import AntiphonError, EngineUnavailable, MessageTooLarge, NodeUnreachable
from ..names import control_topic, inbox_topic
from ..types import Receipt
from .node import Node

__all__ = ["Answers", "Call", "Control"]

logger = logging.getLogger("antiphon.layer")

# What a node does when it is asked: takes the arguments, returns the value, or an awaitable of it. May raise.
Call: TypeAlias = Callable[[Mapping[str, Any]], Any]

# A part of a long answer: small enough that neither side's loop notices it.
PART_BYTES = 128 << 10
_PART_ITEMS = 1000
# What stands around the value of an answer, at most.
_ANSWER_BYTES = 160
_NODE_ID = re.compile(r"[a-zA-Z0-9\-_]{1,99}")


class Answers(NamedTuple):
    """What the nodes that listen to a topic answered.

    ``values``: [(node, value)]. ``complete``: every node that the engine reached has answered, and none with an error.
    ``errors``: [(node, text)].
    """

    values: list[tuple[str, Any]]
    complete: bool
    errors: list[tuple[str, str]]


class Control:
    """One node's calls. Lives on the node's loop and is touched only there.

    ``pack(topic, body)``: puts a control envelope around an encoded body. ``calls``: what this node does for others, by name.
    ``max_bytes``: the bound of one body.
    """

    def __init__(
        self, node: Node, pack: Callable[[str, bytes], bytes], calls: Mapping[str, Call], *, max_bytes: int = 1 << 20
    ) -> None:
        self.node = node
        self.max_bytes = max_bytes
        self.malformed = 0
        self._pack = pack
        self._calls = calls
        self._numbers = itertools.count(1)
        self._questions: dict[int, _Question] = {}
        self._tasks: set[asyncio.Future[Any]] = set()
        self._listens = False

    def __repr__(self) -> str:
        return f"<Control {self.node.id} {len(self._questions)} questions, {len(self._tasks)} tasks>"

    async def listen(self) -> None:
        """Return once others reach this node: at once, but for a new node's first moment."""
        if not self._listens:
            listening = self.node.engine.subscribe((self.node.inbox, control_topic()))
            if listening is not None:
                await asyncio.shield(listening)
            self._listens = True

    def end(self) -> None:
        """End what is under way: the node is gone. From any thread."""
        for task in tuple(self._tasks):
            with contextlib.suppress(RuntimeError):  # the loop is closed, and its tasks are gone with it
                self.node.loop.call_soon_threadsafe(task.cancel)

    # Asking

    async def ask_node(self, node_id: str, call: str, args: Mapping[str, Any], timeout_s: float) -> Any:
        """Have one node do something; return its answer.

        Raises NodeUnreachable at once when nobody listens to the node's inbox, and after ``timeout_s`` when it does
        not answer; it may have done it all the same. EngineUnavailable when the node answers that it could not.
        """
        question = await self._ask(inbox_topic(node_id), call, args, timeout_s, listeners=1)
        if question.nodes == 0:
            raise NodeUnreachable(f"node {node_id} is gone: nobody listens to its inbox")
        if node_id in question.errors:
            raise EngineUnavailable(f"node {node_id} could not do {call!r}: {question.errors[node_id]}")
        if node_id not in question.values:
            raise NodeUnreachable(f"node {node_id} did not answer within timeout_s ({timeout_s:g} s)")
        return question.values[node_id]

    async def ask_topic(self, topic: str, call: str, args: Mapping[str, Any], timeout_s: float) -> Answers:
        """Have every node that listens to ``topic`` do something; return what they answered within ``timeout_s``.

        Raises EngineUnavailable when the engine does not take the question.
        """
        question = await self._ask(topic, call, args, timeout_s)
        complete = question.complete and not question.errors
        return Answers(list(question.values.items()), complete, list(question.errors.items()))

    async def _ask(
        self, topic: str, call: str, args: Mapping[str, Any], timeout_s: float, *, listeners: int | None = None
    ) -> _Question:
        number = next(self._numbers)
        body = encode({"call": call, "id": number, "from": self.node.id, "args": args})
        if len(body) > self.max_bytes:
            raise MessageTooLarge(f"call {call!r}: {len(body)} bytes encoded, max_message_bytes is {self.max_bytes}")
        question = self._questions[number] = _Question(asyncio.get_running_loop().create_future())
        try:
            async with asyncio.timeout(timeout_s):
                # Where there are several servers, answers may come by another than the question goes.
                await self.listen()
                receipt = self.node.engine.publish(topic, self._pack(topic, body))
                reached = (receipt if isinstance(receipt, Receipt) else await receipt).nodes
                question.expect(listeners if reached is None else reached)
                await question.done
        except TimeoutError as exc:
            if not question.asked:
                raise EngineUnavailable(f"the engine did not take call {call!r} within {timeout_s:g} s") from exc
        finally:
            del self._questions[number]
        return question

    # Being asked

    def handle(self, envelope: HeadedEnvelope) -> None:
        """Take a control envelope, question or answer. Never waits, never raises."""
        try:
            body = envelope.message()
            if "answer" in body:
                self._take_answer(body)
            else:
                self._take_call(body)
        except (ValueError, TypeError, KeyError) as exc:  # no release of ours sends such a thing
            self.malformed += 1
            self.node.hub.refuse_body(envelope)
            logger.debug("Refused a control envelope on topic %r: %r", envelope.topic, exc)

    def _take_answer(self, body: Mapping[str, Any]) -> None:
        number, node_id = body["answer"], _checked_id(body["node"])
        question = self._questions.get(number)
        if question is None:
            return  # too late: whoever asked has given up
        if "error" in body:
            question.fail(node_id, str(body["error"]))
        elif "part" in body:
            question.take_part(node_id, body["part"], body["value"], last=bool(body["last"]))
        else:
            question.take(node_id, body["value"])

    def _take_call(self, body: Mapping[str, Any]) -> None:
        name, number, asker, args = body["call"], body["id"], _checked_id(body["from"]), body["args"]
        if not isinstance(number, int) or not isinstance(name, str) or not isinstance(args, dict):
            raise TypeError(f"a malformed call: {name!r:.80} {number!r:.20} {args!r:.80}")
        call = self._calls.get(name)
        if call is None:
            self._answer(asker, {"answer": number, "error": f"no call {name!r:.80}: another version?"})
            return
        try:
            value = call(args)
            if isinstance(value, Coroutine):
                self.keep(self._finish(asker, number, name, value))
            else:
                self._answer_value(asker, number, value)
        except Exception as exc:
            self._fail(asker, number, name, exc)

    async def _finish(self, asker: str, number: int, name: str, value: Awaitable[Any]) -> None:
        try:
            self._answer_value(asker, number, await value)
        except Exception as exc:
            self._fail(asker, number, name, exc)

    def _fail(self, asker: str, number: int, name: str, exc: Exception) -> None:
        logger.warning("Call %r of node %s failed: %r", name, asker, exc)
        text = str(exc) if isinstance(exc, AntiphonError) else repr(exc)
        self._answer(asker, {"answer": number, "error": text[:400]})

    def _answer_value(self, asker: str, number: int, value: Any) -> None:
        if isinstance(value, list) and next(_parts(value, self._part_bytes), value) is not value:
            self.keep(self._answer_parts(asker, number, value))
        else:
            self._answer(asker, {"answer": number, "value": value})

    @property
    def _part_bytes(self) -> int:
        return min(PART_BYTES, self.max_bytes - _ANSWER_BYTES)

    async def _answer_parts(self, asker: str, number: int, items: list[Any]) -> None:
        """Answer with a long list, in parts that each fit."""
        parts = _parts(items, self._part_bytes)
        part = next(parts)
        for count in itertools.count():
            following = next(parts, None)
            answer = {"answer": number, "value": part, "part": count, "last": following is None}
            self._answer(asker, answer)
            if following is None:
                return
            part = following
            await asyncio.sleep(0)  # the loop serves its sockets between parts

    def _answer(self, asker: str, answer: dict[str, Any]) -> None:
        answer["node"] = self.node.id
        body = encode(answer)
        if len(body) > self.max_bytes:
            text = f"its answer has {len(body)} bytes, max_message_bytes is {self.max_bytes}"
            body = encode({"answer": answer["answer"], "node": self.node.id, "error": text})
        try:
            topic = inbox_topic(asker)
            receipt = self.node.engine.publish(topic, self._pack(topic, body))
        except AntiphonError as exc:
            logger.info("Could not answer node %s: %s", asker, exc)
            return
        if not isinstance(receipt, Receipt):
            self.keep(receipt)

    def keep(self, work: Awaitable[Any]) -> None:
        """Run something to its end, or to the node's."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.info("Could not answer another node: %s", task.exception())


class _Question:
    """One call under way: who has answered what, and how many are to."""

    def __init__(self, done: asyncio.Future[None]) -> None:
        self.done = done
        self.asked = False
        self.nodes: int | None = None
        self.values: dict[str, Any] = {}
        self.errors: dict[str, str] = {}
        self._parts: dict[str, dict[int, list[Any]]] = {}
        self._ends: dict[str, int] = {}

    @property
    def complete(self) -> bool:
        """Whether every node that the engine reached has answered; never, where the engine cannot say how many."""
        return self.nodes is not None and len(self.values) + len(self.errors) >= self.nodes

    def expect(self, nodes: int | None) -> None:
        """Learn that it was asked, and how many will answer."""
        self.asked = True
        self.nodes = nodes
        self._look()

    def take(self, node_id: str, value: Any) -> None:
        """Take a node's answer."""
        self.values[node_id] = value
        self._look()

    def take_part(self, node_id: str, part: int, value: list[Any], *, last: bool) -> None:
        """Take a part of a node's answer, in any order."""
        if not isinstance(part, int) or not isinstance(value, list):
            raise TypeError(f"a malformed part {part!r:.20} of an answer")
        parts = self._parts.setdefault(node_id, {})
        parts[part] = value
        if last:
            self._ends[node_id] = part
        end = self._ends.get(node_id)
        if end is not None and len(parts) == end + 1:
            self.take(node_id, list(itertools.chain.from_iterable(parts[n] for n in range(end + 1))))

    def fail(self, node_id: str, error: str) -> None:
        """Take a node's word that it could not."""
        self.errors[node_id] = error
        self._look()

    def _look(self) -> None:
        if self.complete and not self.done.done():
            self.done.set_result(None)


def _checked_id(node_id: object) -> str:
    # It becomes part of a topic's name.
    if not isinstance(node_id, str) or not _NODE_ID.fullmatch(node_id):
        raise ValueError(f"not a node's id: {node_id!r:.80}")
    return node_id


def _parts(items: list[Any], limit_bytes: int) -> Iterator[list[Any]]:
    """Cut a list into parts, none of which has more than ``limit_bytes`` encoded, unless one item alone does."""
    step = _PART_ITEMS
    at = 0
    while at < len(items):
        part = items if not at and len(items) <= step else items[at : at + step]
        if len(part) > 1 and len(encode({"value": part})) > limit_bytes:
            step = max(1, len(part) // 2)
            continue
        yield part
        at += len(part)
