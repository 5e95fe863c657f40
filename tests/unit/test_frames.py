"""Frames (RFC 6455) from raw bytes: what is built, what is read, what is refused and with which code."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ProtocolError
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from antiphon.wire.deflate import Setting, compress, inflate
from antiphon.wire.frames import (
    BAD_DATA,
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    TOO_BIG,
    FrameError,
    FrameReader,
    close_frame,
    frame,
    unmasked,
)
from tests.server.uvicorns import masked

CONTINUATION = 0
PROTOCOL_ERROR, POLICY = 1002, 1008


def read(*data: bytes, max_bytes: int = 1 << 20, max_fragments: int = 1000, **options: Any) -> list[tuple[int, object]]:
    """Feed a reader and return what it found."""
    reader = FrameReader(max_bytes, max_fragments, **options)
    found: list[tuple[int, object]] = []
    for part in data:
        reader.feed(part, found)
    return found


def refused(*data: bytes, **options: Any) -> int:
    """Feed a reader what it must refuse, and return the code."""
    with pytest.raises(FrameError) as caught:
        read(*data, **options)
    assert caught.value.reason
    return caught.value.code


# Built


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 100_000])
def test_a_frame_is_what_another_library_reads(size: int) -> None:
    reader = StreamReader()
    reader.feed_data(
        frame(BINARY, b"x" * size) + frame(TEXT, ("ü" * size).encode()) + frame(PING, b"") + close_frame(4000, "bye")
    )
    parsed = []
    for _ in range(4):
        steps = Frame.parse(reader.read_exact, mask=False)
        with pytest.raises(StopIteration) as done:
            next(steps)
        parsed.append(done.value.value)
    assert [each.opcode for each in parsed] == [Opcode.BINARY, Opcode.TEXT, Opcode.PING, Opcode.CLOSE]
    assert [bytes(each.data) for each in parsed[:2]] == [b"x" * size, ("ü" * size).encode()]
    assert bytes(parsed[3].data) == b"\x0f\xa0bye"


def test_a_reason_too_long_for_a_close_frame_is_cut_between_characters() -> None:
    [(kind, said)] = read(masked(CLOSE, close_frame(1000, "ü" * 100)[2:]))
    assert (kind, said) == (CLOSE, (1000, "ü" * 61))


def test_a_close_frame_without_a_code_is_empty() -> None:
    assert close_frame(None) == close_frame(1005) == b"\x88\x00"


# Read


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_a_mask_is_taken_off(data: bytes, mask: bytes) -> None:
    assert unmasked(data, mask) == bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_messages_of_any_size_are_read(size: int) -> None:
    assert read(masked(TEXT, b"t" * size) + masked(BINARY, b"b" * size)) == [(TEXT, "t" * size), (BINARY, b"b" * size)]


def test_lengths_need_not_be_written_in_their_shortest_form() -> None:
    assert read(b"\x81\xfe\x00\x02" + b"\0\0\0\0" + b"hi") == [(TEXT, "hi")]


def test_control_frames_may_come_between_fragments() -> None:
    found = read(
        masked(TEXT, b"one ", fin=False), masked(PING, b"p"), masked(CONTINUATION, b"two ", fin=False), masked(PONG, b""),
        masked(CONTINUATION, b"three"),
    )  # fmt: skip
    assert found == [(PING, b"p"), (PONG, b""), (TEXT, "one two three")]


def test_a_character_may_be_cut_between_fragments() -> None:
    assert read(masked(TEXT, b"\xc3", fin=False), masked(CONTINUATION, b"\xbc")) == [(TEXT, "ü")]


def test_a_close_inside_a_fragmented_message_is_a_close() -> None:
    assert read(masked(TEXT, b"cut", fin=False), masked(CLOSE, b"\x03\xe8")) == [(CLOSE, (1000, ""))]


def test_nothing_is_read_behind_a_close() -> None:
    assert read(masked(CLOSE, b"") + masked(TEXT, b"late")) == [(CLOSE, (1005, ""))]


MESSAGES = st.lists(
    st.one_of(
        st.tuples(st.just(TEXT), st.text(max_size=200)),
        st.tuples(st.just(BINARY), st.binary(max_size=200)),
        st.tuples(st.just(PING), st.binary(max_size=125)),
    ),
    max_size=8,
)


@given(st.data(), MESSAGES)
def test_however_a_stream_is_cut_the_messages_are_the_same(
    data: st.DataObject, messages: list[tuple[int, Any]]
) -> None:
    stream = b""
    for kind, value in messages:
        payload = value.encode() if kind == TEXT else value
        if kind == PING or not data.draw(st.booleans()):
            stream += masked(kind, payload)
        else:
            at = data.draw(st.integers(0, len(payload)))
            stream += masked(kind, payload[:at], fin=False) + masked(CONTINUATION, payload[at:])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    parts = [stream[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read(*parts) == messages


@given(st.lists(st.binary(max_size=100), max_size=5))
def test_whatever_comes_is_read_or_refused(parts: list[bytes]) -> None:
    try:
        found = read(*parts, max_bytes=1000)
    except FrameError as exc:
        found = [(exc.code, "")]
    assert all(isinstance(code, int) for code, _ in found)


@given(st.binary(max_size=60))
def test_what_another_library_refuses_is_refused_here(data: bytes) -> None:
    reader = StreamReader()
    reader.feed_data(data)
    steps = Frame.parse(reader.read_exact, mask=True, max_size=1000)
    bad = False
    try:
        next(steps)
    except ProtocolError:
        bad = True
    except (StopIteration, Exception):  # whole, or longer than it may be
        bad = False
    if bad:
        assert refused(data, max_bytes=1000)


# Refused


@pytest.mark.parametrize("first", [0xC1, 0xA1, 0x91, 0xF1, 0xC9, 0xC0])
def test_reserved_bits_are_refused(first: int) -> None:
    assert refused(bytes((first, 0x80)) + b"\0" * 4) == PROTOCOL_ERROR


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_unknown_opcodes_are_refused(opcode: int) -> None:
    assert refused(masked(opcode, b"")) == PROTOCOL_ERROR


def test_a_frame_without_a_mask_is_refused_before_its_payload_came() -> None:
    assert refused(b"\x81\x05") == PROTOCOL_ERROR


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_control_frames_are_short_and_whole(opcode: int) -> None:
    assert refused(masked(opcode, b"x" * 126)) == PROTOCOL_ERROR
    assert refused(masked(opcode, b"", fin=False)) == PROTOCOL_ERROR


def test_fragments_out_of_order_are_refused() -> None:
    assert refused(masked(CONTINUATION, b"of nothing")) == PROTOCOL_ERROR
    assert refused(masked(TEXT, b"one", fin=False), masked(TEXT, b"two")) == PROTOCOL_ERROR
    assert refused(masked(TEXT, b"all"), masked(CONTINUATION, b"more")) == PROTOCOL_ERROR


@pytest.mark.parametrize("payload", [b"\x03", b"\x00\x00", b"\x03\xe7", b"\x03\xec", b"\x03\xed", b"\x03\xee", b"\x03\xf7", b"\x07\xd0", b"\x0b\xb7", b"\x13\x88"])  # fmt: skip
def test_close_codes_that_may_not_be_sent_are_refused(payload: bytes) -> None:
    assert refused(masked(CLOSE, payload)) == PROTOCOL_ERROR


def test_a_reason_that_is_no_text_is_refused() -> None:
    assert refused(masked(CLOSE, b"\x03\xe8\xff")) == BAD_DATA


@pytest.mark.parametrize("payload", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf"])
def test_text_that_is_no_text_is_refused(payload: bytes) -> None:
    assert refused(masked(TEXT, payload)) == BAD_DATA


def test_it_is_refused_as_soon_as_it_cannot_become_text_any_more() -> None:
    assert refused(masked(TEXT, b"fine \xc3", fin=False), masked(CONTINUATION, b"\x28", fin=False)) == BAD_DATA


def test_a_message_longer_than_allowed_is_refused_by_its_head() -> None:
    assert refused(masked(BINARY, b"x" * 1001)[:8], max_bytes=1000) == TOO_BIG
    assert refused(b"\x82\xff" + (1 << 62).to_bytes(8, "big"), max_bytes=1000) == TOO_BIG
    assert (
        refused(masked(BINARY, b"x" * 600, fin=False), masked(CONTINUATION, b"x" * 401)[:4], max_bytes=1000) == TOO_BIG
    )


def test_a_message_in_more_fragments_than_allowed_is_refused() -> None:
    parts = [masked(TEXT, b"", fin=False), *[masked(CONTINUATION, b"", fin=False)] * 10]
    assert read(*parts, max_fragments=11) == []
    assert refused(*parts, max_fragments=10) == POLICY


def test_many_small_fragments_take_no_more_memory_than_the_message() -> None:
    part = masked(CONTINUATION, b"x", fin=False) * 1000
    reader, found = FrameReader(1 << 20, 1 << 20), list[tuple[int, object]]()
    reader.feed(masked(BINARY, b"", fin=False), found)
    tracemalloc.start()
    for _ in range(100):
        reader.feed(part, found)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 1_000_000
    reader.feed(masked(CONTINUATION, b""), found)
    assert found == [(BINARY, b"x" * 100_000)]


# Compressed


def compressed(payload: bytes) -> bytes:
    return masked(TEXT, compress(payload, Setting()), rsv=4)


def test_a_compressed_message_is_read_where_that_was_agreed() -> None:
    assert read(compressed("ü".encode() * 100), inflate=inflate) == [(TEXT, "ü" * 100)]
    assert refused(compressed(b"text")) == PROTOCOL_ERROR


def test_only_the_first_frame_of_a_message_says_that_it_is_compressed() -> None:
    data = compress(b"text " * 100, Setting())
    first = masked(TEXT, data[:5], fin=False, rsv=4)
    assert read(first, masked(CONTINUATION, data[5:]), inflate=inflate) == [(TEXT, "text " * 100)]
    assert refused(first, masked(CONTINUATION, data[5:], rsv=4), inflate=inflate) == PROTOCOL_ERROR


def test_a_compressed_message_is_measured_by_what_it_becomes() -> None:
    assert refused(compressed(b"x" * 100_000), max_bytes=1000, inflate=inflate) == TOO_BIG
