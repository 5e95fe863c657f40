"""The names of channels_redis under ``install_as_channels()``: settings written for it, over real servers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import Run

PRELUDE = """
import antiphon; antiphon.install_as_channels()
import asyncio, contextlib, re, sys
from antiphon.testing.faults import ValkeySentinel, ValkeyServer

def configure(layers):
    from django.conf import settings
    settings.configure(INSTALLED_APPS=["channels"], SECRET_KEY="x", DATABASES={}, USE_TZ=True, CHANNEL_LAYERS=layers)
    import django; django.setup()

def use(backend, **config):
    configure({"default": {"BACKEND": backend, "CONFIG": config}})

@contextlib.contextmanager
def refused(error, *words):
    "Fail unless that error is raised, with these words in its text."
    try:
        yield
    except error as exc:
        assert all(word in str(exc) for word in words), exc
    else:
        raise SystemExit(f"no {error!r} was raised")

async def reaches(alias):
    "Send from one layer to a member of another: what two processes with the same settings are to each other."
    from channels.layers import channel_layers
    here, there = channel_layers.make_backend(alias), channel_layers.make_backend(alias)
    channel = await there.new_channel()
    await there.group_add("room", channel)
    await here.group_send("room", {"type": "x", "n": 1, "big": 2**70})
    assert await asyncio.wait_for(there.receive(channel), 30) == {"type": "x", "n": 1, "big": 2**70}, alias
    await here.send(channel, {"type": "direct"})
    assert await asyncio.wait_for(there.receive(channel), 30) == {"type": "direct"}, alias
    await here.send("thumbs", {"type": "work"})
    assert await asyncio.wait_for(there.receive("thumbs"), 30) == {"type": "work"}, alias
    await here.close()
    await there.close()
    return here
"""
BACKENDS = ("channels_redis.core.RedisChannelLayer", "channels_redis.pubsub.RedisPubSubChannelLayer")

Program = Callable[[str], str]


@pytest.fixture
def program(run: Run) -> Program:
    """Run a program that begins with the above; return its output."""
    return lambda text: run("-c", PRELUDE + text)


def test_the_names_are_there_without_django_and_without_a_client(run: Run) -> None:
    run(
        "-c",
        """
import sys
for name in ("django", "redis", "hiredis", "cryptography", "channels_redis"):
    sys.modules[name] = None
del sys.modules["channels_redis"]
import antiphon; antiphon.install_as_channels()
import channels_redis, channels_redis.pubsub, channels_redis.serializers, channels_redis.utils
from channels_redis.core import RedisChannelLayer
assert channels_redis.__version__ == "4.3.0"
for layer in (RedisChannelLayer, channels_redis.pubsub.RedisPubSubChannelLayer):
    try:
        layer(hosts=[("localhost", 6379)])
    except antiphon.exceptions.MissingExtra as exc:
        assert 'pip install "antiphon[redis]"' in str(exc), exc
    else:
        raise SystemExit("made without a client")
""",
    )


def test_both_are_the_layer_of_antiphon(program: Program) -> None:
    program(
        """
import antiphon.layers
from channels.layers import BaseChannelLayer
from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer
for layer in (RedisChannelLayer, RedisPubSubChannelLayer):
    assert issubclass(layer, (antiphon.layers.RedisChannelLayer)) and issubclass(layer, BaseChannelLayer)
    assert layer.extensions == ["groups", "flush"]
"""
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_form_of_hosts_reaches_its_server(program: Program, backend: str) -> None:
    program(
        f"""
with ValkeyServer(unix_socket=True) as server, ValkeyServer(requirepass="se:cret") as locked:
    forms = {{
        "pair": [("127.0.0.1", server.port)],
        "list": [["127.0.0.1", str(server.port)]],
        "url": [server.tcp_url],
        "database": [f"redis://127.0.0.1:{{server.port}}/3"],
        "socket": [server.unix_url],
        "address": [{{"address": f"redis://127.0.0.1:{{server.port}}", "db": 1, "socket_timeout": None}}],
        "parts": [{{"host": "127.0.0.1", "port": server.port, "db": 2}}],
        "password": [f"redis://:se%3Acret@127.0.0.1:{{locked.port}}/0"],
        "password beside": [{{"host": "127.0.0.1", "port": locked.port, "password": "se:cret"}}],
        "shards": [("127.0.0.1", server.port), {{"host": "127.0.0.1", "port": locked.port, "password": "se:cret"}}],
    }}
    configure({{name: {{"BACKEND": {backend!r}, "CONFIG": {{"hosts": hosts}}}} for name, hosts in forms.items()}})
    for alias in forms:
        asyncio.run(reaches(alias))
"""
    )


def test_a_service_of_sentinels_reaches_its_primary(program: Program) -> None:
    program(
        f"""
with ValkeySentinel() as service:
    use({BACKENDS[0]!r}, hosts=service.hosts)
    asyncio.run(reaches("default"))
"""
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_other_option_means_what_it_did(program: Program, backend: str) -> None:
    program(
        f"""
with ValkeyServer() as server:
    config = {{
        "hosts": [server.url],
        "prefix": "shop",
        "expiry": 30,
        "group_expiry": 3600,
        "capacity": 7,
        "channel_capacity": {{"http.request": 200, "thumb*": 20, re.compile(r"^websocket.send\\!.+"): 5}},
        "symmetric_encryption_keys": ["new key", "old key"],
        "random_prefix_length": 14,
        "serializer_format": "json",
    }}
    use({backend!r}, **config)
    layer = asyncio.run(reaches("default"))
    assert (layer.expiry, layer.group_expiry, layer.capacity) == (30, 3600, 7)
    names = ("http.request", "thumbs", "websocket.send!x", "other")
    assert [layer.get_capacity(name) for name in names] == [200, 20, 5, 7]
    foreign = [key for key in server.command("KEYS", "*") if not key.startswith(b"shop:a1:")]
    assert foreign == [], foreign
"""
    )


def test_positional_arguments_have_their_old_places(program: Program) -> None:
    program(
        """
from channels_redis.core import RedisChannelLayer
layer = RedisChannelLayer([("localhost", 1)], "p", 30, 3600, 7, {"a": 3}, None, 14, "json")
assert (layer.expiry, layer.group_expiry, layer.capacity, layer.get_capacity("a")) == (30, 3600, 7, 3)
"""
    )


def test_an_unknown_option_raises_for_one_name_and_is_a_warning_for_the_other(program: Program) -> None:
    said = program(
        """
import logging; logging.basicConfig(format="%(name)s %(message)s")
from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer
with refused((TypeError, ValueError), "capasity", "capacity"):
    RedisChannelLayer(hosts=[("localhost", 1)], capasity=10)
layer = RedisPubSubChannelLayer(hosts=[("localhost", 1)], password="secret", capacity=10)
assert layer.capacity == 10
"""
    )
    assert "antiphon.layer unknown option of RedisPubSubChannelLayer 'password'" in said
    assert "secret" not in said


def test_consumers_hear_that_the_server_went_and_came_back(program: Program) -> None:
    program(
        f"""
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.testing import WebsocketCommunicator

class Asynchronous(AsyncWebsocketConsumer):
    groups = ["room"]
    async def redis_disconnect(self, event): await self.send("gone")
    async def redis_reconnect(self, event): await self.send("back")

class Synchronous(WebsocketConsumer):
    groups = ["room"]
    def redis_disconnect(self, event): self.send("gone")
    def redis_reconnect(self, event): self.send("back")

async def main(server):
    clients = [WebsocketCommunicator(consumer.as_asgi(), "/") for consumer in (Asynchronous, Synchronous)]
    for client in clients:
        assert (await client.connect())[0]
    for client in clients:
        assert await client.receive_nothing(0.3)  # it came up for the first time: nobody has missed it
    for _ in range(2):
        server.kill()
        for client in clients:
            assert await client.receive_from(5) == "gone"
        server.restart()
        for client in clients:
            assert await client.receive_from(5) == "back"
            assert await client.receive_nothing(0.1)
    for client in clients:
        await client.disconnect()
    from channels.layers import get_channel_layer
    await get_channel_layer().close()

with ValkeyServer() as server:
    use({BACKENDS[1]!r}, hosts=[server.url], on_disconnect="redis.disconnect", on_reconnect="redis.reconnect")
    asyncio.run(main(server))
"""
    )


def test_closing_pools_after_each_send_closes_no_connection(program: Program) -> None:
    program(
        f"""
from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer

async def send_and_close(n):
    layer = get_channel_layer()
    await layer.group_send("room", {{"type": "x", "n": n}})
    await layer.close_pools()

async def main():
    layer = get_channel_layer()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    for n in range(3):
        await asyncio.to_thread(async_to_sync(send_and_close), n)
    await layer.close_pools()
    assert [(await asyncio.wait_for(layer.receive(channel), 30))["n"] for _ in range(3)] == [0, 1, 2]
    made = int(server.info("stats")["total_connections_received"])
    await asyncio.to_thread(async_to_sync(send_and_close), 3)
    assert (await asyncio.wait_for(layer.receive(channel), 30))["n"] == 3
    assert int(server.info("stats")["total_connections_received"]) == made
    await layer.close()

with ValkeyServer() as server:
    use({BACKENDS[0]!r}, hosts=[server.url])
    asyncio.run(main())
"""
    )


def test_a_registered_serializer_decides_what_arrives(program: Program) -> None:
    program(
        f"""
import json
from channels_redis.serializers import JSONSerializer, registry

class Point:
    x = 1

class PointsAsJSON(JSONSerializer):
    def as_bytes(self, message, *args, **kwargs):
        return super().as_bytes(message, *args, default=lambda point: {{"x": point.x}}, **kwargs)

class Bare:
    def __init__(self, **options): assert options["symmetric_encryption_keys"] is None
    def serialize(self, message): return json.dumps(message).encode()
    def deserialize(self, data): return json.loads(data)

registry.register_serializer("points", PointsAsJSON)
registry.register_serializer("bare", Bare)

async def sent(alias, message):
    from channels.layers import channel_layers
    layer = channel_layers.make_backend(alias)
    channel = await layer.new_channel()
    await layer.send(channel, message)
    arrived = await asyncio.wait_for(layer.receive(channel), 30)
    await layer.close()
    return arrived

with ValkeyServer() as server:
    config = {{"hosts": [server.url], "symmetric_encryption_keys": ["key"]}}
    configure({{
        name: {{"BACKEND": {BACKENDS[0]!r}, "CONFIG": {{**config, "serializer_format": name}}}}
        for name in ("msgpack", "points", "bare", "unknown")
    }})
    assert asyncio.run(sent("points", {{"type": "x", "at": Point()}})) == {{"type": "x", "at": {{"x": 1}}}}
    assert asyncio.run(sent("bare", {{"type": "x", "pair": (1, 2), "by": {{1: 2}}}})) == {{
        "type": "x", "pair": [1, 2], "by": {{"1": 2}}
    }}
    assert asyncio.run(sent("msgpack", {{"type": "x", "by": {{1: 2}}}})) == {{"type": "x", "by": {{1: 2}}}}
    with refused(TypeError, "Point"):
        asyncio.run(sent("msgpack", {{"type": "x", "at": Point()}}))
    with refused(KeyError, "unknown"):
        asyncio.run(sent("unknown", {{"type": "x"}}))
"""
    )


def test_the_registry_takes_only_what_can_serialize(program: Program) -> None:
    program(
        """
from channels_redis.serializers import MissingSerializer, SerializersRegistry, registry
assert registry.get_serializer("msgpack").deserialize(registry.get_serializer("msgpack").serialize({"type": "x"}))
for wrong in (object, {"serialize": 1}, None):
    with refused(TypeError, "expected a class with serialize and deserialize"):
        SerializersRegistry().register_serializer("wrong", wrong)
with refused(ValueError, "give the keys to the layer"):  # it would look as if it encrypted
    registry.get_serializer("json", symmetric_encryption_keys=["key"])
"""
    )


def test_a_pool_of_ones_own_reaches_each_kind_of_host(program: Program) -> None:
    program(
        """
from channels_redis.utils import create_pool, decode_hosts
from redis.asyncio import Redis

async def main(hosts):
    for host in decode_hosts(hosts):
        client = Redis(connection_pool=create_pool(host))
        assert await client.ping()
        await client.aclose(close_connection_pool=True)

with ValkeySentinel() as service:
    port = service.primary.port
    url = f"redis://127.0.0.1:{port}"
    asyncio.run(main([("127.0.0.1", port), url, {"address": url}, {"host": "127.0.0.1", "port": port}, *service.hosts]))
assert decode_hosts(None) == [{"address": "redis://localhost:6379"}]
with refused(ValueError, "expected a list"):
    decode_hosts("redis://localhost")
"""
    )
