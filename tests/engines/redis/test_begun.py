"""A publish that is written before anybody waits for its reply, as ``async_to_sync`` of ``group_send`` does."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async

from antiphon.exceptions import EngineUnavailable, MessageTooLarge
from antiphon.layers import RedisChannelLayer
from antiphon.testing.faults import ValkeyServer
from tests.waiting import eventually

HELLO = {"type": "hello"}


@pytest.fixture
def layer(own_valkey: ValkeyServer) -> Iterator[RedisChannelLayer]:
    layer = RedisChannelLayer([own_valkey.url], max_message_bytes=1000, timeout_s=10)
    yield layer
    asyncio.run(layer.close())


def published(server: ValkeyServer) -> int:
    """Return how many publishes the server has run."""
    stats = server.info("commandstats").get("cmdstat_publish", "calls=0,")
    return int(stats.partition("calls=")[2].partition(",")[0])


def test_it_is_on_its_way_before_anybody_waits_for_the_reply(
    layer: RedisChannelLayer, own_valkey: ValkeyServer
) -> None:
    publisher = layer._bus.publisher
    assert publisher.publish("g:room", b"first") == 0
    begun = publisher.begin("g:room", b"second")
    assert eventually(lambda: published(own_valkey) == 2)
    assert publisher.sent == 1
    assert begun.finish() == 0
    assert publisher.sent == 2
    assert publisher.connections_made == 1


def test_without_a_connection_at_hand_it_waits_for_its_turn(layer: RedisChannelLayer, own_valkey: ValkeyServer) -> None:
    publisher = layer._bus.publisher
    begun = publisher.begin("g:room", b"first")
    assert publisher.connections_made == published(own_valkey) == 0
    assert begun.finish() == 0
    assert publisher.sent == published(own_valkey) == 1


def test_one_that_nobody_waits_for_takes_its_connection_along(layer: RedisChannelLayer) -> None:
    publisher = layer._bus.publisher
    publisher.publish("g:room", b"first")
    begun = publisher.begin("g:room", b"second")
    del begun
    gc.collect()
    assert publisher.publish("g:room", b"third") == 0  # and not the reply to the second
    assert publisher.connections_made == 2
    assert publisher.sent == 2


def test_two_begun_at_once_have_a_connection_each(layer: RedisChannelLayer) -> None:
    publisher = layer._bus.publisher
    publisher.publish("g:room", b"first")
    begun = [publisher.begin("g:room", b"%d" % n) for n in range(3)]
    assert [one.finish() for one in reversed(begun)] == [0, 0, 0]
    assert publisher.sent == 4


def test_a_server_that_dies_meanwhile_is_told_of_and_leaves_no_doubt_about_the_doubt(
    layer: RedisChannelLayer, own_valkey: ValkeyServer
) -> None:
    publisher = layer._bus.publisher
    publisher.publish("g:room", b"first")
    own_valkey.stop()
    begun = publisher.begin("g:room", b"second")
    own_valkey.kill()
    with pytest.raises(EngineUnavailable, match="may have taken effect or not"):
        begun.finish()
    own_valkey.start()
    assert eventually(lambda: publisher.publish("g:room", b"third") == 0)


def test_a_server_that_was_restarted_before_is_dialled_anew(layer: RedisChannelLayer, own_valkey: ValkeyServer) -> None:
    send = async_to_sync(layer.group_send)
    send("room", HELLO)
    own_valkey.kill()
    own_valkey.start()
    assert send("room", HELLO).nodes == 0
    assert layer._bus.publisher.sent == 2


def test_async_to_sync_sends_in_the_lane_of_the_thread_that_calls(layer: RedisChannelLayer) -> None:
    send = async_to_sync(layer.group_send)
    for n in range(5):
        assert send("room", {"type": "said", "n": n}).nodes == 0
    assert layer._lane().n == 5
    assert layer.stats()["sent"] == 5
    assert layer.stats()["nodes"] == 0


def test_a_loop_that_waited_for_the_thread_and_has_ended_is_not_waited_for(layer: RedisChannelLayer) -> None:
    async_to_sync(sync_to_async(lambda: None))()  # runs in this thread, for a loop that is gone by now
    async_to_sync(layer.group_send)("room", HELLO)
    assert layer._lane().n == 1


def test_async_to_sync_raises_what_is_wrong(layer: RedisChannelLayer) -> None:
    send = async_to_sync(layer.group_send)
    with pytest.raises(TypeError, match="Group name"):
        send("no room", HELLO)
    with pytest.raises(MessageTooLarge):
        send("room", {"type": "said", "text": "x" * 1000})
    assert layer.stats()["sent"] == 0


def test_what_nobody_awaits_is_not_sent(layer: RedisChannelLayer) -> None:
    async_to_sync(layer.group_send)("room", HELLO)
    with pytest.warns(RuntimeWarning, match="never awaited"):
        layer.group_send("room", HELLO)  # type: ignore[unused-coroutine]  # that is the point
    assert layer._bus.publisher.sent == layer.stats()["sent"] == 1


def test_it_is_a_coroutine_function_as_any(layer: RedisChannelLayer) -> None:
    assert iscoroutinefunction(layer.group_send)
    assert asyncio.run(layer.group_send("room", HELLO)).nodes == 0


def test_in_a_thread_of_sync_to_async_it_is_the_loop_that_sends(layer: RedisChannelLayer) -> None:
    async def main() -> None:
        await layer.new_channel()
        threads: list[str] = []

        def view() -> None:
            threads.append(threading.current_thread().name)
            async_to_sync(layer.group_send)("room", HELLO)

        await sync_to_async(view)()
        assert threads != [threading.current_thread().name]
        await layer.close()

    asyncio.run(main())
    assert layer._bus.publisher.connections_made == 0
