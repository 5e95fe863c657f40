from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from antiphon import codec, envelope
from antiphon.envelope import CONTROL, MARKER, MESSAGE, pack, unpack

U64 = st.integers(0, 2**64 - 1)
CHANNELS = st.lists(st.text("abc.!", min_size=1, max_size=8), max_size=3)
EXTRAS = st.fixed_dictionaries(
    {}, optional={"x": CHANNELS, "t": CHANNELS, "c": st.text("abc", min_size=1), "k": st.text()}
)


@given(st.sampled_from([MESSAGE, CONTROL, MARKER]), U64, U64, U64, st.binary(max_size=60), EXTRAS)
def test_an_envelope_is_read_as_it_was_packed(
    kind: int, lane: int, n: int, sent_us: int, body: bytes, extra: dict[str, Any]
) -> None:
    read = unpack(pack(kind, lane, n, sent_us, body, extra))
    assert (read.kind, read.id, read.sent_us, read.body, read.extra) == (kind, (lane, n), sent_us, body, extra)


# Written by version 1, to be read for ever: if this fails, the layout changed, and running nodes of the release
# before would refuse what this one sends.
GOLDEN_PLAIN = (
    "a7010000"  # magic, version 1, kind message, no flags
    "0102030405060708"  # lane
    "0000000000000009"  # n
    "0006415fb5b0c800"  # sent_us
    "81a474797065a474657374"  # {"type": "test"}
)


def test_golden_bytes_of_a_plain_message() -> None:
    payload = pack(MESSAGE, 0x0102030405060708, 9, 0x0006415FB5B0C800, codec.encode({"type": "test"}))
    assert payload.hex() == GOLDEN_PLAIN
    read = unpack(bytes.fromhex(GOLDEN_PLAIN))
    assert read.id == (0x0102030405060708, 9)
    assert read.sent_us == 0x0006415FB5B0C800
    assert read.message() == {"type": "test"}


def test_golden_bytes_of_a_message_with_extras() -> None:
    extra = {"x": ["a", "b!c"], "t": ["g:1", "g:2"]}
    section = "82a17892a161a3622163a17492a3673a31a3673a32"
    golden = "a7010101" + "ff" * 8 + "00" * 7 + "01" + "00" * 7 + "02" + f"{len(section) // 2:08x}" + section + "c0"
    assert pack(CONTROL, 2**64 - 1, 1, 2, b"\xc0", extra).hex() == golden
    read = unpack(bytes.fromhex(golden))
    assert (read.kind, read.extra, read.body) == (CONTROL, extra, b"\xc0")


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "at least"),
        (b"\xa7\x01\x00\x00" + b"\0" * 23, "at least"),
        (b"\xa8\x01\x00\x00" + b"\0" * 24, "magic"),
        (b"\xa7\x02\x00\x00" + b"\0" * 24, "version"),
        (b"\xa7\x00\x00\x00" + b"\0" * 24, "version"),
        (b"\xa7\x01\x03\x00" + b"\0" * 24, "kind"),
        (b"\xa7\x01\x00\x08" + b"\0" * 24, "flags"),
        (b"\xa7\x01\x00\x80" + b"\0" * 24, "flags"),
        (b"\xa7\x01\x00\x01" + b"\0" * 24, "cut short"),
        (b"\xa7\x01\x00\x01" + b"\0" * 24 + b"\0\0\0", "cut short"),
        (b"\xa7\x01\x00\x01" + b"\0" * 24 + b"\xff\xff\xff\xff\x80", "cut short"),
        (b"\xa7\x01\x00\x01" + b"\0" * 24 + b"\0\0\0\x01\xc0", "not a map"),
        (b"\xa7\x01\x00\x01" + b"\0" * 24 + b"\0\0\0\x01\x93", "EOF|eof|range|unexpected|end"),
    ],
)
def test_what_no_release_sent_is_refused_with_the_reason(payload: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        unpack(payload)


@pytest.mark.parametrize(
    "extra", [{"c": ["a"]}, {"c": 1}, {"x": 1}, {"x": [["a"]]}, {"t": 5}, {"t": [None]}, {"t": "g:a"}]
)
def test_extras_of_the_wrong_shape_are_refused_before_a_hub_uses_them(extra: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        unpack(pack(MESSAGE, 1, 1, 1, b"\xc0", extra))


HEADS = st.builds(
    lambda kind, flags, rest: bytes((envelope.MAGIC, envelope.VERSION, kind, flags)) + rest,
    st.integers(0, 255),
    st.integers(0, 255),
    st.binary(max_size=80),
)
DAMAGED = st.builds(
    lambda extra, at, byte: (lambda p: p[: at % len(p)] + bytes((byte,)) + p[at % len(p) + 1 :])(
        pack(MESSAGE, 1, 2, 3, b"\x81\xa1a\x01", extra)
    ),
    EXTRAS,
    st.integers(0, 500),
    st.integers(0, 255),
)


@given(st.binary(max_size=120) | HEADS | DAMAGED)
@example(b"\xa7\x01\x00\x01" + b"\0" * 24 + b"\0\0\0\x03\xc7\x00\x01")
def test_junk_is_a_value_error_and_nothing_else(junk: bytes) -> None:
    try:
        read = unpack(junk)
        read.message()
    except ValueError:
        pass


def test_each_reader_gets_a_message_of_its_own_unless_it_promised_not_to_change_it() -> None:
    read = unpack(pack(MESSAGE, 1, 1, 1, codec.encode({"type": "t", "list": []})))
    assert read.message() is not read.message()
    assert read.shared_message() is read.shared_message()
    assert read.shared_message() == read.message()


def test_the_group_is_known_from_the_topic_alone() -> None:
    read = unpack(pack(MESSAGE, 1, 1, int(time.time() * 1e6), b"\xc0"))
    assert read.group is None
    read.topic = "g:lobby"
    assert read.group == "lobby"
    read.topic = "u:lobby"
    assert read.group is None
    assert "1:1" in repr(read)


def test_an_envelope_that_is_sent_again_says_so_and_is_otherwise_the_same() -> None:
    first = envelope.pack(envelope.MESSAGE, 7, 9, 5, b"body", {"x": ["a!b"]})
    again = envelope.mark_again(first)
    assert again[3] == first[3] | envelope.FLAG_AGAIN
    assert again[:3] + again[4:] == first[:3] + first[4:]
    read = envelope.unpack(again)
    assert (read.id, read.body, read.extra) == ((7, 9), b"body", {"x": ["a!b"]})
    assert read.header == envelope.unpack(first).header == first[: -len(b"body")]


def test_a_sealed_body_is_bound_to_the_header_before_it() -> None:
    seen = []

    def seal(header: bytes, body: bytes) -> bytes:
        seen.append((header, body))
        return b"sealed"

    payload = envelope.pack(envelope.MESSAGE, 7, 9, 5, b"body", None, seal)
    read = envelope.unpack(payload)
    assert read.encrypted
    assert read.body == b"sealed"
    assert seen == [(read.header, b"body")]
    assert envelope.unpack(envelope.mark_again(payload)).header == read.header
