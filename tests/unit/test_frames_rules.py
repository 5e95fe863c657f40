"""Frames, what else a client may try: cut anywhere, announced too long, behind an end; and the way for small ones."""

from __future__ import annotations

import os
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from antiphon.server.unmask import unmask
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
    small_text,
    unmasked,
)
from tests.server.uvicorns import masked

CONTINUATION, PROTOCOL_ERROR, POLICY = 0, 1002, 1008
MASK = b"\x37\xfa\x21\x3d"
Found = list[tuple[int, object]]


def reader(max_bytes: int = 1 << 20, max_fragments: int = 1000, *, deflate: bool = False) -> FrameReader:
    return FrameReader(max_bytes, max_fragments, inflate if deflate else None, unmask)


def read(*parts: bytes, by: FrameReader | None = None) -> tuple[Found, int | None]:
    """Return what a reader finds in reads of these, and the code by which it refuses them."""
    by = reader() if by is None else by
    found: Found = []
    try:
        for part in parts:
            by.feed(part, found)
    except FrameError as exc:
        return found, exc.code
    return found, None


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


@pytest.mark.parametrize("code", [0, 999, 1004, 1006, 1015, 1016, 2999, 5000, 65536, -1])
def test_a_close_code_that_may_not_be_sent_is_named(code: int) -> None:
    with pytest.raises(ValueError, match=f"got {code}"):
        close_frame(code)


@pytest.mark.parametrize("code", [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999])
def test_every_other_close_code_is_read(code: int) -> None:
    assert read(masked(CLOSE, code.to_bytes(2, "big") + b"bye"))[0] == [(CLOSE, (code, "bye"))]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 100_000])
@pytest.mark.parametrize("split", [997, 64])
def test_frames_in_small_reads_are_unmasked_from_where_they_were(size: int, split: int) -> None:
    text, data = "*" * size, os.urandom(size)
    stream = masked(TEXT, text.encode()) + masked(BINARY, data)
    parts = [stream[at : at + split] for at in range(0, len(stream), split)]
    assert read(*parts) == ([(TEXT, text), (BINARY, data)], None)


def test_what_is_read_is_bytes_and_not_a_buffer() -> None:
    [(_, whole), (_, pieces)] = read(masked(BINARY, b"x"), masked(BINARY, b"a", fin=False), masked(CONTINUATION, b"b"))[
        0
    ]
    assert type(whole) is type(pieces) is bytes


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_a_long_control_frame_is_refused_before_its_length_has_come(opcode: int) -> None:
    assert read(masked(opcode, b"x" * 126)[:2])[1] == PROTOCOL_ERROR


@pytest.mark.parametrize("fin", [True, False])
def test_a_small_text_does_not_slip_into_a_fragmented_message(fin: bool) -> None:
    assert read(masked(BINARY, b"a", fin=False), masked(TEXT, b"b", fin=fin))[1] == PROTOCOL_ERROR


def test_text_in_one_frame_is_refused_as_soon_as_it_can_be_none() -> None:
    assert read(masked(TEXT, b"valid \xf4\x90\x80\x80 and more")[: 6 + 8])[1] == BAD_DATA
    assert read(*bytewise(masked(TEXT, b"\xce\xba\xe1\xbd")))[1] == BAD_DATA  # ends within a character


def test_nothing_is_read_behind_an_end() -> None:
    for ends in (masked(CLOSE, b"\x03\xe8"), masked(3)):
        by = reader()
        read(ends, by=by)
        assert read(masked(TEXT, b"x"), b"\xff\xff", by=by) == ([], None)


def test_a_length_of_64_bits_is_refused() -> None:
    assert read(b"\x82\xff" + (1 << 63).to_bytes(8, "big"))[1] == PROTOCOL_ERROR
    assert read(b"\x82\xff" + ((1 << 63) - 1).to_bytes(8, "big"))[1] == TOO_BIG


def test_a_small_message_is_measured_too() -> None:
    assert read(masked(TEXT, b"xyz"), by=reader(2))[1] == TOO_BIG


def test_a_frame_in_small_reads_holds_no_more_than_its_payload() -> None:
    by = reader()
    data = masked(BINARY, b"x" * 200_000)
    tracemalloc.start()
    try:
        for at in range(0, 190_000, 100):
            by.feed(data[at : at + 100], [])
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 300_000


def test_a_reader_holds_nothing_between_messages_and_says_so() -> None:
    by = reader()
    read(masked(TEXT, b"a", fin=False), masked(TEXT, b"x")[:1], by=by)
    assert repr(by) == "<FrameReader 2 bytes held>"
    by = reader()
    read(masked(TEXT, b"a", fin=False), masked(CONTINUATION, b"b"), masked(PING, b"?"), by=by)
    assert repr(by) == "<FrameReader 0 bytes held>"


def test_what_cannot_be_compressed_may_be_longer_than_the_limit_while_it_travels() -> None:
    payload = os.urandom(1000)
    packed = compress(payload, Setting())
    assert len(packed) > 1000
    assert read(masked(BINARY, packed, rsv=4), by=reader(1000, deflate=True)) == ([(BINARY, payload)], None)
    assert read(masked(BINARY, b"x" * 1500, rsv=4)[:4], by=reader(1000, deflate=True))[1] == TOO_BIG


def test_a_compressed_message_may_come_in_fragments_and_bytewise() -> None:
    packed = compress(b"Hello, Hello, Hello", Setting())
    pieces = masked(TEXT, packed[:5], fin=False, rsv=4) + masked(PING) + masked(CONTINUATION, packed[5:])
    found = read(*bytewise(pieces), by=reader(deflate=True))
    assert found == ([(PING, b""), (TEXT, "Hello, Hello, Hello")], None)


@pytest.mark.parametrize("size", [1, 125])
def test_one_small_whole_text_is_read_without_a_reader(size: int) -> None:
    assert small_text(masked(TEXT, b"x" * size), 1000) == "x" * size


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x81",
        masked(TEXT),
        masked(TEXT, b"x")[:-1],
        masked(TEXT, b"x") + b"\x81",
        masked(TEXT, b"x" * 126),
        masked(TEXT, b"x", fin=False),
        masked(TEXT, b"x", rsv=4),
        masked(BINARY, b"x"),
        masked(TEXT, b"\xff"),
        masked(TEXT, b"x" * 101),
        frame(TEXT, b"xxxxx"),
    ],
)
def test_anything_else_is_left_to_a_reader(data: bytes) -> None:
    assert small_text(data, 100) is None


PARTS = st.one_of(
    st.builds(lambda text: masked(TEXT, text.encode()), st.text(max_size=200)),
    st.builds(lambda data, opcode: masked(opcode, data), st.binary(max_size=125), st.sampled_from([PING, PONG])),
    st.builds(
        lambda text: b"".join(masked(CONTINUATION if at else TEXT, part, fin=False) for at, part in enumerate(text)),
        st.text(max_size=9).map(lambda text: bytewise(text.encode())),
    ),
    st.builds(lambda data, fin: masked(CONTINUATION, data, fin=fin), st.binary(max_size=2), st.booleans()),
    st.sampled_from([masked(TEXT, b"\xf4\x90"), masked(TEXT, b"\xce"), masked(TEXT, b"x" * 151)]),
    st.builds(lambda code: masked(CLOSE, code.to_bytes(2, "big") + b"x"), st.sampled_from([999, 1000, 4000])),
    st.builds(lambda data: masked(BINARY, compress(data, Setting()), rsv=4), st.binary(max_size=50)),
    st.binary(max_size=20),
)


@given(st.lists(PARTS, max_size=8).map(b"".join), st.integers(2, 50))
def test_however_a_stream_is_cut_the_same_is_found_and_refused_and_little_held(stream: bytes, size: int) -> None:
    whole = read(stream, by=reader(150, 10, deflate=True))
    assert whole[1] in (None, PROTOCOL_ERROR, BAD_DATA, POLICY, TOO_BIG)
    for parts in (bytewise(stream), [stream[at : at + size] for at in range(0, len(stream), size)]):
        by, found, code = reader(150, 10, deflate=True), Found(), None
        for part in parts:
            more, code = read(part, by=by)
            found += more
            assert len(by._head or b"") <= 131
            assert by._message is None or len(by._message.data) <= 150 + 150 // 8 + 64
            if code is not None:
                break
        assert (found, code) == whole


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_a_client_written_by_others_is_understood(payload: bytes, mask: bytes) -> None:
    assert read(Frame(Opcode.BINARY, payload).serialize(mask=True))[0] == [(BINARY, payload)]
    assert unmask(payload, mask) == unmasked(payload, mask)
