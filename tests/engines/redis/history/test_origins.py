"""The script that appends, and the origins it is given: an epoch lasts as long as the server's life that wrote it."""

from __future__ import annotations

from antiphon.engines.redis.append import UNKNOWN_ORIGIN, receipt_of
from antiphon.engines.redis.history_scripts import APPEND
from antiphon.testing.faults import ValkeyServer
from antiphon.types import Position

FIRST, SECOND = b"a" * 16, b"b" * 16


def test_an_epoch_lasts_until_the_origin_is_another_and_known(any_server: ValkeyServer, fresh_prefix: str) -> None:
    channel = f"{fresh_prefix}:a1:{{g:room}}"
    meta, log = f"{channel}m", f"{channel}h"

    def append(origin: bytes) -> Position:
        payload = b"\x00" * 30
        reply = any_server.command("EVAL", APPEND.text, 2, meta, log, origin, 100, 60_000, "PUBLISH", 0, payload)
        position = receipt_of(reply).position
        assert position is not None
        return position

    # Who does not know the server adds to what there is; who knows it first names its life, and does not end it.
    origins = [UNKNOWN_ORIGIN, UNKNOWN_ORIGIN, FIRST, FIRST, UNKNOWN_ORIGIN, FIRST, SECOND, SECOND, UNKNOWN_ORIGIN]
    positions = [append(origin) for origin in origins]
    assert [position.offset for position in positions] == list(range(1, len(origins) + 1))
    before, after = positions[0].epoch, positions[-1].epoch
    assert before != after
    assert [position.epoch for position in positions] == [before] * 6 + [after] * 3
    found = any_server.command("HGETALL", meta)
    fields = dict(zip(found[::2], found[1::2], strict=True))
    # The epoch stands under one origin only: an earlier one that came back would find its own epoch there.
    assert {name for name in fields if len(name) == 16} == {SECOND}
    assert fields[SECOND] == fields[b"e"] == after.encode()
    assert fields[b"b"] == f"{before}:6,".encode()
