"""Flushing a server: ours alone, in few questions, and refused with an error of ours."""

from __future__ import annotations

import pytest

from antiphon.exceptions import EngineUnavailable
from antiphon.testing.faults import ValkeyServer
from tests.engines.redis.link.layers import MakeLayer


async def test_a_refused_flush_is_an_error_of_ours(own_valkey: ValkeyServer, make_layer: MakeLayer) -> None:
    own_valkey.command("ACL", "SETUSER", "narrow", "on", "nopass", "~*", "&*", "+@all", "-scan")
    layer = make_layer(own_valkey.url.replace("unix://", "unix://narrow:x@"))
    with pytest.raises(EngineUnavailable, match="(?i)scan"):
        await layer.flush()


async def test_flush_asks_a_server_with_many_keys_a_few_hundred_times(
    own_valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    layer = make_layer(own_valkey.url, ping_interval_s=5)
    fill = f"for i = 1, 50000 do redis.call('SET', '{layer.prefix}:a1:x' .. i, '1') end"
    own_valkey.command("EVAL", fill, "0", timeout_s=50)
    own_valkey.command("SET", "theirs", "1")
    before = int(own_valkey.command("DBSIZE"))
    await layer.flush()
    assert before >= 50001
    assert int(own_valkey.command("DBSIZE")) == 1
    # Each is a round trip; the deletions of one travel together.
    calls = own_valkey.info("commandstats")["cmdstat_scan"].partition(",")[0]
    assert 1 < int(calls.removeprefix("calls=")) < 300
