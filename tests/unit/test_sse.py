"""Server-sent events as bytes, and the token of positions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.exceptions import TokenInvalid
from antiphon.types import Position
from antiphon.wire.position_token import read_positions, sign_positions
from antiphon.wire.sse import EventReader, encode_comment, encode_event

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
KEY = b"secret"


@given(st.lists(TEXT), st.data())
def test_what_is_written_is_read_however_it_is_cut(texts: list[str], data: st.DataObject) -> None:
    stream = b"".join(
        encode_event(text, event="e", event_id=str(n)) + encode_comment("c") for n, text in enumerate(texts)
    )
    reader, found, at = EventReader(), [], 0
    while at < len(stream):
        size = data.draw(st.integers(1, 20))
        found += reader.feed(stream[at : at + size])
        at += size
    unified = [text.replace("\r\n", "\n").replace("\r", "\n") for text in texts]
    assert [(event.event, event.data, event.id) for event in found] == [
        ("e", text, str(n)) for n, text in enumerate(unified)
    ]
    assert reader.comments == len(texts)


def test_an_id_alone_is_taken_note_of() -> None:
    reader = EventReader()
    assert reader.feed(encode_event(event_id="7", retry_ms=1500)) == []
    assert (reader.last_id, reader.retry_ms) == ("7", 1500)
    assert reader.feed(encode_event("x"))[0].id == "7"
    assert encode_event("a\r\nb\rc") == b"data: a\ndata: b\ndata: c\n\n"


@pytest.mark.parametrize("field", ["event", "event_id"])
@pytest.mark.parametrize("value", ["a\nb", "a\rdata: x", "\0"])
def test_no_name_can_smuggle_a_line(field: str, value: str) -> None:
    with pytest.raises(ValueError, match="expected text of one line"):
        encode_event("x", **{field: value})  # type: ignore[arg-type]


@given(
    st.dictionaries(
        TEXT.filter(bool), st.builds(Position, TEXT.filter(lambda t: len(t) < 60), st.integers(0)), max_size=32
    )
)
def test_positions_come_back(positions: dict[str, Position]) -> None:
    token = sign_positions(positions, KEY)
    assert read_positions(token, positions, [b"older", KEY]) == positions
    with pytest.raises(TokenInvalid):
        read_positions(token, positions, [b"other"])


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_changed_token_is_refused(at: int, change: int) -> None:
    import base64

    token = sign_positions({"room": Position("e1", 12345)}, KEY)
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    raw[at % len(raw)] ^= change
    with pytest.raises(TokenInvalid):
        read_positions(base64.urlsafe_b64encode(raw).decode().rstrip("="), ["room"], [KEY])


@given(st.text() | st.text("AQaz09-_", max_size=80))
def test_any_text_is_refused_and_nothing_else_happens(text: str) -> None:
    with pytest.raises(TokenInvalid):
        read_positions(text, ["room"], [KEY])


def test_more_groups_than_fit_are_an_error_at_the_call() -> None:
    with pytest.raises(ValueError, match="at most 32"):
        sign_positions({f"g{n}": Position("e", n) for n in range(33)}, KEY)


def test_a_token_is_short_and_tells_no_names() -> None:
    token = sign_positions({"room": Position("6b042b1a84636f7", 12345)}, KEY)
    assert len(token) <= 64
    assert "room" not in token
