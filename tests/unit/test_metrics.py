from __future__ import annotations

import asyncio
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from antiphon import configure, metrics
from antiphon.layer.drops import REASONS
from antiphon.layers import InMemoryChannelLayer, channel_layers, get_channel_layer
from antiphon.metrics import FAMILIES, LayerCollector, PrometheusApp, prometheus_app
from antiphon.testing import HttpCommunicator
from antiphon.testing.faults import ValkeyServer
from antiphon.types import Scope

MEMORY = {"BACKEND": "antiphon.layers.InMemoryChannelLayer", "CONFIG": {"capacity": 1}}
Samples = dict[tuple[str, tuple[str, ...]], float]


async def scrape(app: Any = prometheus_app, path: str = "/", accept: str = "text/plain") -> dict[str, Any]:
    answer: dict[str, Any] = await HttpCommunicator(
        app, "GET", path, headers=[(b"accept", accept.encode())]
    ).get_response(5)
    return answer


def samples(answer: dict[str, Any], parse: Callable[[str], Any] = parse_text) -> Samples:
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in parse(answer["body"].decode())
        for sample in family.samples
    }


async def test_it_counts_what_every_layer_of_the_process_did() -> None:
    configure({"default": MEMORY, "other": MEMORY})
    layer, other = get_channel_layer(), get_channel_layer("other")
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await layer.group_send("room", {"type": "x"})
    await layer.group_send("room", {"type": "dropped, for its capacity is 1"})
    await layer.send("worker", {"type": "x"})
    await other.group_send("room", {"type": "to nobody"})

    found = samples(await scrape())

    assert found["antiphon_channels", ("default",)] == 1
    assert found["antiphon_groups", ("default",)] == 1
    assert found["antiphon_waiting_messages", ("default",)] == 1
    assert found["antiphon_worker_channel_messages", ("worker", "default")] == 1
    assert found["antiphon_messages_sent_total", ("default",)] == 3
    assert found["antiphon_messages_delivered_total", ("default",)] == 1
    assert found["antiphon_messages_dropped_total", ("default", "over_capacity")] == 1
    assert found["antiphon_messages_sent_total", ("other",)] == 1
    assert found["antiphon_channels", ("other",)] == 0


async def test_every_reason_to_drop_is_there_before_its_first_drop() -> None:
    await get_channel_layer().group_send("room", {"type": "x"})
    found = samples(await scrape())
    dropped = {labels[1]: value for (name, labels), value in found.items() if name == "antiphon_messages_dropped_total"}
    assert dropped == dict.fromkeys(REASONS, 0)


async def test_nothing_is_made_by_looking() -> None:
    configure({"default": MEMORY})
    assert samples(await scrape()) == {}
    assert channel_layers.backends == {}


@pytest.mark.parametrize(
    ("accept", "kind", "parse"),
    [
        ("text/plain;version=0.0.4", "text/plain; version=0.0.4", parse_text),
        ("*/*", "text/plain; version=0.0.4", parse_text),
        (
            "application/openmetrics-text; version=1.0.0",
            "application/openmetrics-text; version=1.0.0",
            parse_openmetrics,
        ),
    ],
)
async def test_the_format_is_the_one_that_the_client_accepts(accept: str, kind: str, parse: Any) -> None:
    await get_channel_layer().group_send("room", {"type": "x"})
    answer = await scrape(accept=accept)
    assert answer["status"] == 200
    assert dict(answer["headers"])[b"content-type"].decode().startswith(kind)
    assert samples(answer, parse)["antiphon_messages_sent_total", ("default",)] == 1


async def test_counters_and_gauges_are_what_they_say() -> None:
    get_channel_layer()
    kinds = {family.name: family.type for family in parse_text((await scrape())["body"].decode())}
    assert kinds["antiphon_messages_sent"] == "counter"
    assert kinds["antiphon_lag_seconds"] == kinds["antiphon_groups"] == "gauge"


async def test_every_key_of_stats_is_exported_or_left_out_on_purpose() -> None:
    assert InMemoryChannelLayer().stats().keys() <= metrics.FAMILIES.keys() | metrics.NOT_EXPORTED


def deny(scope: Scope) -> bool:
    return False


async def allow_with_token(scope: Scope) -> bool:
    return dict(scope["headers"]).get(b"authorization") == b"Bearer secret"


async def test_a_guard_decides_who_may_see_them() -> None:
    get_channel_layer()
    assert (await scrape(PrometheusApp(guard=deny)))["status"] == 403
    guarded = PrometheusApp(guard=allow_with_token)
    assert (await scrape(guarded))["status"] == 403
    headers = [(b"authorization", b"Bearer secret")]
    answer = await HttpCommunicator(guarded, "GET", "/", headers=headers).get_response()
    assert answer["status"] == 200
    assert b"antiphon_messages_sent_total" in answer["body"]


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_other_methods_are_refused_before_the_guard_is_asked(method: str) -> None:
    answer = await HttpCommunicator(PrometheusApp(guard=deny), method, "/").get_response()
    assert answer["status"] == 405
    assert dict(answer["headers"])[b"allow"] == b"GET, HEAD"


async def test_it_serves_http_alone() -> None:
    with pytest.raises(ValueError, match="serves HTTP; got a scope of type 'websocket'"):
        await prometheus_app({"type": "websocket"}, None, None)  # type: ignore[arg-type]


async def test_it_is_a_route_beside_others() -> None:
    from django.urls import path

    from antiphon.routing import URLRouter

    get_channel_layer()
    answer = await scrape(URLRouter([path("metrics", cast("Any", prometheus_app))]), "/metrics")
    assert answer["status"] == 200


async def test_it_mounts_in_starlette() -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    get_channel_layer()
    answer = await scrape(Starlette(routes=[Mount("/metrics", prometheus_app)]), "/metrics/")
    assert answer["status"] == 200
    assert ("antiphon_nodes", ("default",)) in samples(answer)


def test_the_collector_joins_a_registry_of_ones_own() -> None:
    registry = CollectorRegistry(auto_describe=True)
    registry.register(LayerCollector())
    get_channel_layer()
    assert registry.get_sample_value("antiphon_nodes", {"layer": "default"}) == 0
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(LayerCollector())


def test_without_prometheus_client_it_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['prometheus_client'] = None\nimport antiphon, antiphon.layers\nimport antiphon.metrics"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 1
    assert 'pip install "antiphon[prometheus]"' in done.stderr.splitlines()[-1]


def test_every_metric_is_documented_beside_its_counter() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "logging.md").read_text()
    documented = dict(re.findall(r"^\| `(\w+)` \| (?:gauge|counter) \| `(\w+)` \|", text, re.MULTILINE))
    exported = {key: f"antiphon_{family.name}{'_total' * family.counts}" for key, family in FAMILIES.items()}
    assert documented == exported


# Over processes

OTHER = """
import asyncio, sys
from antiphon.layers import RedisChannelLayer

async def main():
    layer = RedisChannelLayer(hosts=[sys.argv[1]])
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    print("ready", flush=True)
    while True:
        print((await layer.receive(channel))["n"], flush=True)

asyncio.run(main())
"""


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as started:
        yield started


@pytest.fixture
def other(server: ValkeyServer) -> Iterator[subprocess.Popen[str]]:
    """A process that prints what reaches its one member of the group "room"."""
    process = subprocess.Popen([sys.executable, "-c", OTHER, server.url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


async def test_one_scrape_may_tell_of_every_process(server: ValkeyServer, other: subprocess.Popen[str]) -> None:
    config = {"hosts": [server.url], "timeout_s": 2}
    configure({"default": {"BACKEND": "antiphon.layers.RedisChannelLayer", "CONFIG": config}})
    layer = get_channel_layer()
    await layer.group_send("room", {"type": "x", "n": 7})
    assert other.stdout is not None
    assert await asyncio.to_thread(other.stdout.readline) == "7\n"
    here, there = (f"{platform.node()}:{pid}" for pid in (os.getpid(), other.pid))

    app = PrometheusApp(every_process=True)
    found = samples(await scrape(app))
    assert found["antiphon_messages_sent_total", ("default", here)] == 1
    assert found["antiphon_messages_delivered_total", ("default", here)] == 0
    assert found["antiphon_messages_sent_total", ("default", there)] == 0
    assert found["antiphon_messages_delivered_total", ("default", there)] == 1
    assert found["antiphon_links", ("default", there, "up")] == 1
    assert found["antiphon_scrape_complete", ("default",)] == 1

    other.send_signal(signal.SIGSTOP)
    found = samples(await scrape(app))
    assert found["antiphon_scrape_complete", ("default",)] == 0
    assert ("antiphon_messages_sent_total", ("default", here)) in found

    server.kill()
    found = samples(await scrape(app))
    assert found["antiphon_links", ("default", here, "down")] == 1
    assert found["antiphon_scrape_complete", ("default",)] == 0
    await layer.close()
