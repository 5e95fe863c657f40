"""Prometheus text as an ASGI application, over ``stats()`` of a process's layers (the extra ``prometheus``).

Knows the keys of ``stats()`` and nothing of engines. Importing it without ``prometheus_client`` raises MissingExtra.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import platform
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, NamedTuple

from .exceptions import EngineUnavailable, MissingExtra
from .layer.drops import REASONS
from .layer.layer import ChannelLayer
from .layer.members import Described
from .layer.registry import channel_layers
from .types import Event, Receive, Scope, Send

try:
    from prometheus_client import CollectorRegistry, make_asgi_app
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError:
    raise MissingExtra.of("prometheus-client", "prometheus", "antiphon.metrics") from None

__all__ = ["LayerCollector", "PrometheusApp", "prometheus_app"]

Guard = Callable[[Scope], bool | Awaitable[bool]]


class _Family(NamedTuple):
    """One metric: its name, whether it only grows, what it is; and where its samples differ, by which label."""

    name: str
    counts: bool
    help: str
    label: str | None = None

    def empty(self, *labels: str) -> Any:
        kind = CounterMetricFamily if self.counts else GaugeMetricFamily
        return kind(f"antiphon_{self.name}", self.help, labels=[*labels, *([self.label] if self.label else [])])


# A key of stats() -> its metric. A key whose value is a dict has one sample for each of its entries.
FAMILIES = {
    "nodes": _Family("nodes", False, "Event loops that own channels."),
    "channels": _Family("channels", False, "Open mailboxes: one for each connection, and hand-made ones."),
    "groups": _Family("groups", False, "Groups with at least one member in the process."),
    "waiting": _Family("waiting_messages", False, "Messages that wait in mailboxes."),
    "worker_channels": _Family("worker_channel_messages", False, "Messages that wait, by worker channel.", "channel"),
    "idle_channels": _Family("idle_channels", True, "Hand-made channels that left their groups because nobody read."),
    "sent": _Family("messages_sent", True, "Messages published by the process."),
    "arrived": _Family("messages_arrived", True, "Messages that reached a node of the process."),
    "delivered": _Family("messages_delivered", True, "Mailboxes that took a message."),
    "drops": _Family("messages_dropped", True, "Messages that were not delivered, by reason.", "reason"),
    "undecodable": _Family("messages_undecodable", True, "Arrivals that are not a message of this version."),
    "duplicates": _Family("messages_duplicate", True, "Messages that arrived once more and were delivered once."),
    "lost": _Family("losses", True, "Spans in which messages of one topic may be lost, once a node."),
    "history_topics": _Family("history_topics", False, "Groups with a history that have members in the process."),
    "history_filling": _Family("history_filling", False, "Those of them whose missing messages are being read."),
    "history": _Family("history_events", True, "What happened to histories: holes, filled, recovered….", "event"),
    "presence_members": _Family("presence_members", False, "Members of groups with presence, in the process."),
    "presence_waiting": _Family("presence_waiting", False, "Joins and leaves that the engine has not heard of."),
    "links": _Family("links", False, "Connections to the engine's servers.", "state"),
    "lag_s": _Family("lag_seconds", False, "From publishing to the first reader: last, mean (decaying), max.", "stat"),
}
# ``dropped`` is the sum over ``drops``; names of groups are the application's, and would make series without bound.
NOT_EXPORTED = frozenset(("dropped", "drops_by_group"))
# How long a scrape waits for other processes.
ANSWERS_S = 2.0


class LayerCollector(Collector):
    """Collects the metrics of the layers of this process, at each scrape anew.

    Register it to serve them beside metrics of your own: ``prometheus_client.REGISTRY.register(LayerCollector())``.
    """

    def __repr__(self) -> str:
        return f"<LayerCollector of {', '.join(_layers()) or 'no layers yet'}>"

    def describe(self) -> Iterator[Metric]:
        """Yield the metrics without samples: registering makes no layer and reads none."""
        for family in FAMILIES.values():
            yield family.empty("layer")

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics with samples for each layer that was made in this process."""
        return _metrics(("layer",), {(alias,): layer.stats() for alias, layer in _layers().items()})


class _Gathered(Collector):
    """What all processes said of their layers, for one scrape."""

    def __init__(self) -> None:
        self._stats: dict[tuple[str, ...], dict[str, Any]] = {}
        self._complete: dict[str, bool] = {}

    async def gather(self, alias: str, layer: ChannelLayer) -> None:
        try:
            nodes = await layer.nodes_info(limit=0, timeout_s=ANSWERS_S)
        except EngineUnavailable:
            nodes = Described(complete=False)
        self._complete[alias] = nodes.complete
        self._stats[alias, f"{platform.node()}:{os.getpid()}"] = layer.stats()  # whatever the engine does
        # Nodes of one process say the same of it.
        self._stats.update(((alias, f"{node['host']}:{node['pid']}"), node["stats"]) for node in nodes)

    def collect(self) -> Iterator[Metric]:
        yield from _metrics(("layer", "process"), self._stats)
        complete = GaugeMetricFamily(
            "antiphon_scrape_complete", "Whether every process of the layer answered this scrape.", labels=["layer"]
        )
        for alias, answered in self._complete.items():
            complete.add_metric([alias], answered)
        yield complete


def _layers() -> dict[str, ChannelLayer]:
    made = channel_layers.backends.copy()
    return {alias: layer for alias, layer in made.items() if isinstance(layer, ChannelLayer)}


def _metrics(labels: tuple[str, ...], stats: Mapping[tuple[str, ...], Mapping[str, Any]]) -> Iterator[Metric]:
    for key, family in FAMILIES.items():
        metric = family.empty(*labels)
        for values, counted in stats.items():
            _add(metric, family, values, counted.get(key))
        yield metric


def _add(metric: Any, family: _Family, labels: tuple[str, ...], value: Any) -> None:
    if family.label is None:
        if value is not None:
            metric.add_metric(labels, value)
        return
    samples: dict[str, float] = dict(value or {})
    if family.label == "reason":
        # A series that begins with its first drop hides that one from increase(): each known reason starts at 0.
        samples = {**dict.fromkeys(REASONS, 0), **samples}
    for name, number in samples.items():
        metric.add_metric((*labels, name), number)


class PrometheusApp:
    """Serves the metrics over HTTP: GET and HEAD, in the format the client accepts.

    ``guard``: called with the scope of each request, plain or ``async``; where it returns False the answer is 403.
    ``every_process``: asks the other processes of the layers too, and gives each sample the label ``process``
    (``host:pid``); for servers that share one port, where nobody knows which one a scrape reaches.
    """

    def __init__(self, guard: Guard | None = None, *, every_process: bool = False) -> None:
        self._guard = guard
        self._every_process = every_process

    def __repr__(self) -> str:
        return f"<PrometheusApp {'guarded' if self._guard else 'open'}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise ValueError(f"antiphon.metrics serves HTTP; got a scope of type {scope['type']!r}")
        if scope["method"] not in ("GET", "HEAD"):
            await _refuse(send, 405, b"GET or HEAD only\n", (b"allow", b"GET, HEAD"))
        elif not await self._allowed(scope):
            await _refuse(send, 403, b"Not allowed to see metrics\n")
        else:
            registry = CollectorRegistry()
            registry.register(await self._collector())
            serve: Any = make_asgi_app(registry)
            await serve(scope, receive, _with_lower_case_names(send))

    async def _allowed(self, scope: Scope) -> bool:
        if self._guard is None:
            return True
        allowed = self._guard(scope)
        return bool(await allowed) if inspect.isawaitable(allowed) else bool(allowed)

    async def _collector(self) -> Collector:
        if not self._every_process:
            return LayerCollector()
        gathered = _Gathered()
        await asyncio.gather(*(gathered.gather(alias, layer) for alias, layer in _layers().items()))
        return gathered


def _with_lower_case_names(send: Send) -> Send:
    # ASGI wants names of headers in lower case, and HTTP/2 refuses others; the client's application writes Content-Type.
    async def forward(event: Event) -> None:
        if "headers" in event:
            event = {**event, "headers": [(name.lower(), value) for name, value in event["headers"]]}
        await send(event)

    return forward


async def _refuse(send: Send, status: int, text: bytes, *headers: tuple[bytes, bytes]) -> None:
    plain = (b"content-type", b"text/plain; charset=utf-8")
    await send({"type": "http.response.start", "status": status, "headers": [plain, *headers]})
    await send({"type": "http.response.body", "body": text})


prometheus_app = PrometheusApp()
