"""What is said about a server when it is first reached, by real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import hiredis
import pytest
import redis.asyncio
from redis.exceptions import ResponseError

from antiphon.engines.redis.hosts import Address
from antiphon.engines.redis.keys import Keys
from antiphon.engines.redis.startup import check_server
from antiphon.testing.faults import ValkeyServer

BINARIES = {"valkey": None, "redis": "/usr/bin/redis-server"}


@asynccontextmanager
async def asking(server: ValkeyServer, log: list[str] | None = None) -> AsyncIterator[Any]:
    """Yield ``call``: replies as they are, errors as hiredis has them."""
    client: Any = redis.asyncio.Redis.from_url(server.url, protocol=3, single_connection_client=True)
    client.response_callbacks.clear()

    async def call(*command: Any) -> Any:
        if log is not None:
            log.append(" ".join(map(str, command[:2])))
        try:
            return await client.execute_command(*command)
        except ResponseError as exc:
            raise hiredis.ReplyError(str(exc)) from exc

    try:
        yield call
    finally:
        await client.aclose()


async def warnings_of(server: ValkeyServer, *, prefix: str = "asgi", cluster: bool = False) -> list[str]:
    async with asking(server) as call:
        return await check_server(call, Address("127.0.0.1", server.port), Keys(prefix), cluster=cluster)


@pytest.mark.parametrize("binary", BINARIES)
async def test_a_server_that_suits_gets_no_warning(binary: str) -> None:
    with ValkeyServer(binary=BINARIES[binary]) as server:
        server.command("SET", "asgi:a1:{q:x}", "ours")
        server.command("ZADD", "asgi:group", "1", "not a group of theirs")
        assert await warnings_of(server) == []


@pytest.mark.parametrize("rules", [["+@all"], ["+@all", "-config"]])
async def test_a_server_that_evicts_is_named_though_its_configuration_may_be_secret(rules: list[str]) -> None:
    users = [("default", "on", "nopass", "~*", "&*", *rules)]
    with ValkeyServer(maxmemory="50mb", maxmemory_policy="allkeys-lru", user=users) as server:
        (warning,) = await warnings_of(server)
    assert warning.startswith(f"127.0.0.1:{server.port}: maxmemory-policy is 'allkeys-lru'")
    assert "set it to 'noeviction'" in warning


async def test_what_may_not_be_asked_is_no_warning() -> None:
    with ValkeyServer() as server:
        server.command("ACL", "SETUSER", "default", "-config", "-info", "-role", "-scan", "-pubsub")
        assert await warnings_of(server) == []


async def test_a_replica_is_named() -> None:
    with ValkeyServer() as primary, ValkeyServer(replicaof=("127.0.0.1", primary.port)) as replica:
        (warning,) = await warnings_of(replica)
    assert "role is 'slave'" in warning
    assert "name the primary in hosts" in warning


async def test_a_cluster_without_the_option_and_the_option_without_a_cluster_are_named() -> None:
    with ValkeyServer(cluster_enabled=True) as member, ValkeyServer() as loner:
        assert "set it to True" in " ".join(await warnings_of(member))
        assert "remove the option" in " ".join(await warnings_of(loner, cluster=True))
        assert await warnings_of(member, cluster=True) == []


async def test_an_old_server_is_named() -> None:
    async def call(*command: Any) -> Any:
        return b"redis_version:6.0.16\r\n" if command[:2] == ("INFO", "server") else None

    (warning,) = await check_server(call, Address(), Keys("asgi"))
    assert "6.0.16 is older than 6.2" in warning
    assert "upgrade" in warning


@pytest.mark.parametrize("key", ["asgi:group:chat", "asgispecific.0123456789abcdef!"])
async def test_live_keys_of_channels_redis_are_named_under_the_same_prefix_alone(key: str) -> None:
    with ValkeyServer() as server:
        for number in range(3000):
            server.command("SET", f"other:{number}", "x")
        server.command("ZADD", key, "1", "member")
        (warning,) = await warnings_of(server)
        assert "do not hear each other" in warning
        assert await warnings_of(server, prefix="mine") == []


async def test_live_subscriptions_of_channels_redis_pubsub_layer_are_named() -> None:
    with ValkeyServer() as server:
        client: Any = redis.asyncio.Redis.from_url(server.url)
        pubsub = client.pubsub()
        await pubsub.subscribe("asgi__group__chat")
        await pubsub.get_message(timeout=30)
        (warning,) = await warnings_of(server)
        assert "do not hear each other" in warning
        await pubsub.aclose()
        await client.aclose()


async def test_the_look_for_keys_ends_on_a_server_with_very_many() -> None:
    with ValkeyServer() as server:
        server.command("EVAL", "for i = 1, 60000 do redis.call('SET', 'k' .. i, 1) end", 0, timeout_s=50)
        log: list[str] = []
        async with asking(server, log) as call:
            assert await check_server(call, Address(), Keys("asgi")) == []
        assert 15 <= len([line for line in log if line.startswith("SCAN")]) <= 20
        assert not [line for line in log if line.startswith("KEYS")]


async def test_a_connection_that_breaks_is_no_matter_of_warnings() -> None:
    async def call(*command: Any) -> Any:
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        await check_server(call, Address(), Keys("asgi"))
