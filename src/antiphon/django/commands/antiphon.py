"""``manage.py antiphon groups | connections | send | ping``: looks into a layer, and sends through it.

Shows what nodes say of themselves. Knows no engine.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import time
from argparse import ArgumentTypeError
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from asgiref.sync import async_to_sync
from django.core.management import BaseCommand, CommandError, CommandParser

from ...exceptions import AntiphonError, EngineUnavailable, InvalidChannelLayerError
from ...layer.description import CHANNELS_MAX
from ...layer.layer import ChannelLayer
from ...layer.members import Described
from ...layer.memory import InMemoryChannelLayer
from ...layer.registry import DEFAULT_CHANNEL_LAYER, get_channel_layer
from ...layer.sync import group_send, user_send
from ...types import Message, Receipt

__all__ = ["Command"]

N = TypeVar("N", int, float)


class Command(BaseCommand):
    """Show groups and connections of all processes, send a message, or see who answers."""

    help = "Looks into a channel layer over all its processes: groups, connections, ping; and sends a message."
    leave_locale_alone = True
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the four things it can do, each with its own options."""
        common = CommandParser(add_help=False)
        common.add_argument("--layer", default=DEFAULT_CHANNEL_LAYER, metavar="ALIAS", help="Alias of the layer.")
        common.add_argument("--json", action="store_true", help="Print JSON, for programs.")
        patience = CommandParser(add_help=False)
        patience.add_argument(
            "--timeout", type=_seconds, default=2.0, metavar="S", help="Seconds to wait for answers (default: 2)."
        )
        detail = CommandParser(add_help=False)
        detail.add_argument(
            "--limit",
            type=_count,
            default=CHANNELS_MAX,
            metavar="N",
            help=f"Channels and groups that a node names at most (default: {CHANNELS_MAX}).",
        )
        actions = parser.add_subparsers(dest="action", required=True, metavar="groups | connections | send | ping")
        actions.add_parser(
            "groups", parents=[common, patience, detail], help="Groups, with their members over all processes."
        )
        actions.add_parser(
            "connections", parents=[common, patience, detail], help="Connections, by node: user, consumer, groups."
        )
        send = actions.add_parser("send", parents=[common], help="Send a message to a group, a user or a channel.")
        target = send.add_mutually_exclusive_group()
        target.add_argument("--user", metavar="KEY", help="Send to the connections of a user, by primary key.")
        target.add_argument("--channel", metavar="NAME", help="Send to one channel.")
        send.add_argument(
            "words",
            nargs="+",
            metavar="GROUP JSON | key=text | key:=json",
            help="The group (unless --user or --channel), and the message: one JSON object, or its parts.",
        )
        actions.add_parser("ping", parents=[common, patience], help="See whether the engine and all nodes answer.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do one of the four."""
        layer = _layer(options["layer"])
        if isinstance(layer, InMemoryChannelLayer) and options["action"] != "send":
            self.stderr.write(
                f"The layer {options['layer']!r} is in memory: this command sees its own process, and no other."
            )
        try:
            getattr(self, f"_{options['action']}")(layer, options)
        except AntiphonError as exc:
            raise CommandError(str(exc)) from exc

    def _groups(self, layer: ChannelLayer, options: Mapping[str, Any]) -> None:
        nodes = self._nodes(layer, options)
        bound = async_to_sync(layer.bindings)()
        found: dict[str, dict[str, Any]] = {}
        for node in nodes:
            for name, count in node["groups"].items():
                group = found.setdefault(name, {"members": 0, "nodes": 0, "worker_channels": []})
                group["members"] += count
                group["nodes"] += 1
        for name, queues in bound.items():
            found.setdefault(name, {"members": 0, "nodes": 0})["worker_channels"] = sorted(queues)
        if options["json"]:
            self._print_json(dict(sorted(found.items())))
            return
        self._print_table(
            ("GROUP", "MEMBERS", "NODES", "WORKER CHANNELS"),
            (
                (name, group["members"], group["nodes"], ", ".join(group["worker_channels"]))
                for name, group in sorted(found.items())
            ),
        )
        self.stdout.write(_counted(len(found), "group") + ".")

    def _connections(self, layer: ChannelLayer, options: Mapping[str, Any]) -> None:
        nodes = self._nodes(layer, options)
        if options["json"]:
            self._print_json(nodes)
            return
        for node in nodes:
            self.stdout.write(f"{_node(node)}: {_counted(len(node['channels']), 'channel')}, up {_age(node)}")
            self._print_table(
                ("  CHANNEL", "CONSUMER", "USER", "WAITING", "GROUPS"),
                (
                    (
                        f"  {channel['channel']}",
                        channel["consumer"] or "(hand-made)",
                        channel["user"] or "",
                        f"{channel['waiting']}/{channel['capacity']}",
                        ", ".join(channel["groups"]),
                    )
                    for channel in node["channels"]
                ),
            )
        total = sum(len(node["channels"]) for node in nodes)
        self.stdout.write(f"{_counted(total, 'channel')} on {_counted(len(nodes), 'node')}.")

    def _send(self, layer: ChannelLayer, options: Mapping[str, Any]) -> None:
        words, alias = list(options["words"]), options["layer"]
        user, channel = options["user"], options["channel"]
        group = words.pop(0) if user is None and channel is None else None
        message = _message(words)
        try:
            if channel is not None:
                where = f"channel {channel!r}"
                receipt = async_to_sync(layer.send)(channel, message)
            elif user is not None:
                where = f"the connections of user {user!r}"
                receipt = user_send(user, message, layer=alias, on_commit=False)
            else:
                where = f"group {group!r}"
                receipt = group_send(group or "", message, layer=alias, on_commit=False)
        except TypeError as exc:  # a wrong name, or what cannot travel
            raise CommandError(str(exc)) from exc
        if options["json"]:
            self._print_json(receipt._asdict())
        else:
            self.stdout.write(f"{receipt.state.capitalize()} to {where}: {_reached(receipt)}.")

    def _ping(self, layer: ChannelLayer, options: Mapping[str, Any]) -> None:
        found = async_to_sync(_ask)(layer, options["timeout"])
        if options["json"]:
            self._print_json(found)
        else:
            for link in found["health"]["links"]:
                state = "up, " + _ms(link["latency_s"]) if link["up"] else f"down: {link['reason']}"
                self.stdout.write(f"engine {found['health']['engine']} {link['server'] or link['name']}: {state}")
            for node in found["nodes"]:
                self.stdout.write(f"{_node(node)}: {_ms(node['latency_s'])}")
        if found["silent"]:
            raise CommandError("No answer from " + "; ".join(found["silent"]) + ".")
        if not options["json"]:
            self.stdout.write(f"All answered: {_counted(len(found['nodes']), 'node')}.")

    def _nodes(self, layer: ChannelLayer, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        nodes = async_to_sync(layer.nodes_info)(limit=options["limit"], timeout_s=options["timeout"])
        if not nodes.complete:
            self.stderr.write(f"Not all: a node did not answer within {options['timeout']:g} s.")
        if any(node["truncated"] for node in nodes):
            self.stderr.write("Not all: a node has more channels or groups than it names; see --limit.")
        return _served(nodes)

    def _print_json(self, value: Any) -> None:
        self.stdout.write(json.dumps(value, indent=2, default=str))

    def _print_table(self, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        table = [tuple(map(str, row)) for row in rows]
        if not table:
            return
        # Numbers to the right, as people add them up.
        right = [all(row[i].isdecimal() for row in table) for i in range(len(head))]
        widths = [max(len(row[i]) for row in (head, *table)) for i in range(len(head))]
        for row in (tuple(head), *table):
            cells = (
                cell.rjust(width) if number else cell.ljust(width)
                for cell, width, number in zip(row, widths, right, strict=True)
            )
            self.stdout.write("  ".join(cells).rstrip())


async def _ask(layer: ChannelLayer, timeout_s: float) -> dict[str, Any]:
    """Return what answers and how fast, and what does not, each in words."""
    health, infos = await asyncio.gather(_health(layer, timeout_s), _infos(layer, timeout_s))
    silent = [f"{link['server'] or link['name']} ({link['reason']})" for link in health["links"] if not link["up"]]
    if isinstance(infos, EngineUnavailable):
        if not silent:  # a link that is down says it better
            silent.append(f"the nodes, for the engine does not carry the question ({infos})")
        infos = Described()
    elif not infos.complete:
        silent.append(f"a node that listens and said nothing for {timeout_s:g} s")
    served = _served(infos)
    latencies = await asyncio.gather(
        *(layer.ping_node(node["id"], timeout_s=timeout_s) for node in served), return_exceptions=True
    )
    nodes = []
    for node, latency in zip(served, latencies, strict=True):
        lost = isinstance(latency, BaseException)
        kept = {name: node[name] for name in ("id", "host", "pid", "process", "started_s")}
        nodes.append({**kept, "latency_s": None if lost else latency})
        if lost:
            silent.append(f"{_node(node)} ({latency})")
    return {"ok": not silent, "health": health, "nodes": nodes, "silent": silent}


async def _health(layer: ChannelLayer, timeout_s: float) -> dict[str, Any]:
    """Return the state of the engine, once its links had time to come up: this process has only begun."""
    deadline = time.monotonic() + timeout_s
    while True:
        health = await layer.health()
        if health["ok"] or time.monotonic() > deadline:
            return health
        await asyncio.sleep(0.05)


async def _infos(layer: ChannelLayer, timeout_s: float) -> Described | EngineUnavailable:
    try:
        return await layer.nodes_info(limit=0, timeout_s=timeout_s)
    except EngineUnavailable as exc:
        return exc


def _served(nodes: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the nodes but those that this command's own process has only to ask the others."""
    here = platform.node(), os.getpid()
    shown = [node for node in nodes if (node["host"], node["pid"]) != here or node["stats"]["channels"]]
    return sorted(shown, key=lambda node: (node["host"], node["pid"], node["id"]))


def _layer(alias: str) -> ChannelLayer:
    try:
        layer = get_channel_layer(alias)
    except InvalidChannelLayerError as exc:
        raise CommandError(str(exc)) from exc
    if not isinstance(layer, ChannelLayer):
        kind = "not configured" if layer is None else f"{type(layer).__module__}.{type(layer).__qualname__}"
        raise CommandError(f"The layer {alias!r} is {kind}; this command looks into layers of Antiphon alone.")
    return layer


def _message(words: Sequence[str]) -> Message:
    """Return the message that the words of a command line stand for."""
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        message = _parsed(words[0])
    else:
        message = {}
        for word in words:
            key, equals, text = word.partition("=")
            if not equals:
                raise CommandError(f"expected one JSON object, or key=text and key:=json; got {word!r}")
            if key.endswith(":"):
                message[key[:-1]] = _parsed(text)
            else:
                message[key] = text
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise CommandError('The message needs a "type", which names the handler: type=chat.message text=hello')
    return message


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as exc:
        raise CommandError(f"not JSON: {text!r}: {exc}") from exc


def _reached(receipt: Receipt) -> str:
    if receipt.delivered is not None:
        dropped = f", {receipt.dropped} dropped" if receipt.dropped else ""
        return f"{_counted(receipt.delivered, 'channel')} took it{dropped}"
    if receipt.nodes is None:
        return "the engine does not say how many nodes it reached"
    return f"{_counted(receipt.nodes, 'node')} reached"


def _node(node: Mapping[str, Any]) -> str:
    return f"node {node['id']} ({node['host']}, pid {node['pid']}, {node['process']})"


def _age(node: Mapping[str, Any]) -> str:
    seconds = max(0, round(time.time() - node["started_s"]))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _ms(seconds: float | None) -> str:
    return "no answer" if seconds is None else f"{seconds * 1000:.1f} ms"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _seconds(text: str) -> float:
    return _number(text, float, "a number of seconds above 0")


def _count(text: str) -> int:
    return _number(text, int, "a whole number above 0")


def _number(text: str, kind: type[N], expected: str) -> N:
    try:
        number = kind(text)
    except ValueError:
        number = kind(0)
    if not number > 0:
        raise ArgumentTypeError(f"expected {expected}; got {text!r}")
    return number
