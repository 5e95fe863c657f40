from __future__ import annotations

import pytest

from antiphon.wire.codes import REASONS, close_code, normal_disconnect


@pytest.mark.parametrize(
    ("reason", "plain", "centrifuge", "yjs"),
    [
        ("slow", 1013, 3008, 1013),
        ("restart", 1012, 3001, 1012),
        ("error", 1011, 3004, 1011),
        ("revoked", 4403, 3503, 4403),
        ("unauthenticated", 4401, 3500, 4401),
        ("bad_frame", 1007, 3501, 4400),
    ],
)
def test_a_reason_has_its_code_in_each_protocol(reason: str, plain: int, centrifuge: int, yjs: int) -> None:
    assert close_code(reason) == plain
    assert close_code(reason, "centrifuge") == centrifuge
    assert close_code(reason, "yjs") == yjs


@pytest.mark.parametrize("reason", list(REASONS))
def test_a_client_stops_for_final_reasons_and_returns_after_others(reason: str) -> None:
    codes = REASONS[reason]
    centrifuge_stops = 3500 <= codes.centrifuge <= 3999 or 4500 <= codes.centrifuge <= 4999
    yjs_stops = 4400 <= codes.yjs <= 4499
    assert centrifuge_stops is codes.final
    assert yjs_stops is codes.final
    htmx_retries = codes.plain in {1001, 1005, 1006, *range(1011, 1015)}
    assert htmx_retries is not codes.final


@pytest.mark.parametrize("protocol", ["plain", "centrifuge", "yjs"])
@pytest.mark.parametrize("reason", list(REASONS))
def test_every_code_may_stand_in_a_close_frame(reason: str, protocol: str) -> None:
    code = close_code(reason, protocol)
    assert code in {1007, 1008, 1009, 1011, 1012, 1013} or 3000 <= code <= 4999


def test_an_unknown_reason_is_told_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown close reason 'bored'; known: slow, restart"):
        close_code("bored")


@pytest.mark.parametrize(("reported", "seen"), [(None, 1006), (1005, 1006), (1006, 1006), (1000, 1000), (4403, 4403)])
def test_a_lost_connection_is_1006_whichever_way_it_is_reported(reported: int | None, seen: int) -> None:
    assert normal_disconnect(reported) == seen
