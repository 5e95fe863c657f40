"""Compression of single messages: what is negotiated, and what another's implementation makes of it."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.headers import build_extension, parse_extension

from antiphon.wire.deflate import Setting, compress, inflate, negotiate
from antiphon.wire.frames import BAD_DATA, TOO_BIG, FrameError

BOTH = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


@pytest.mark.parametrize(
    ("offers", "agreed"),
    [
        ("permessage-deflate", (Setting(15), BOTH)),
        ("permessage-deflate; client_max_window_bits", (Setting(15), BOTH)),
        ("permessage-deflate; client_max_window_bits=10", (Setting(15), BOTH)),
        ("permessage-deflate; server_max_window_bits=10", (Setting(10), f"{BOTH}; server_max_window_bits=10")),
        ('permessage-deflate; server_max_window_bits="9"', (Setting(9), f"{BOTH}; server_max_window_bits=9")),
        ("permessage-deflate; server_max_window_bits=8", None),
        ("permessage-deflate; server_max_window_bits=8, permessage-deflate", (Setting(15), BOTH)),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; server_max_window_bits=010", None),
        ("permessage-deflate; server_no_context_takeover=1", None),
        ("permessage-deflate; client_max_window_bits=7", None),
        ("permessage-deflate; unheard_of", None),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits", None),
        ("x-webkit-deflate-frame, permessage-deflate;server_no_context_takeover", (Setting(15), BOTH)),
        ("x-webkit-deflate-frame", None),
        ("", None),
        (";;,=,", None),
    ],
)
def test_the_first_offer_that_can_be_met_is_chosen(offers: str, agreed: object) -> None:
    assert negotiate(offers) == agreed


@given(st.text())
def test_whatever_is_offered_nothing_is_raised(offers: str) -> None:
    negotiate(offers)


@pytest.mark.parametrize("offer", [{}, {"server_max_window_bits": 9}, {"client_max_window_bits": 9}])
def test_a_client_written_by_others_takes_the_answer(offer: dict[str, int]) -> None:
    factory = ClientPerMessageDeflateFactory(**offer)  # type: ignore[arg-type]
    agreed = negotiate(build_extension([(factory.name, factory.get_request_params())]))
    assert agreed is not None
    [(name, parameters)] = parse_extension(agreed[1])
    assert name == "permessage-deflate"
    factory.process_response_params(parameters, [])


@given(st.binary(max_size=5000), st.sampled_from([9, 12, 15]))
def test_what_is_compressed_is_read_by_others_and_what_they_compress_by_us(payload: bytes, bits: int) -> None:
    other = PerMessageDeflate(
        remote_no_context_takeover=True,
        local_no_context_takeover=True,
        remote_max_window_bits=bits,
        local_max_window_bits=15,
    )
    frame = Frame(Opcode.BINARY, compress(payload, Setting(bits)), rsv1=True)
    assert other.decode(frame).data == payload
    assert inflate(bytes(other.encode(Frame(Opcode.BINARY, payload)).data), 5000) == payload


def test_a_bomb_is_not_unpacked_further_than_the_limit() -> None:
    bomb = compress(b"\0" * 50_000_000, Setting())
    assert len(bomb) < 100_000
    with pytest.raises(FrameError) as caught:
        inflate(bomb, 1000)
    assert caught.value.code == TOO_BIG


def test_a_message_of_the_very_limit_is_read() -> None:
    assert inflate(compress(b"x" * 1000, Setting()), 1000) == b"x" * 1000


def test_a_message_that_ends_with_a_last_block_is_read() -> None:
    deflater = zlib.compressobj(wbits=-15)
    assert inflate(deflater.compress(b"whole") + deflater.flush(zlib.Z_FINISH), 100) == b"whole"


@pytest.mark.parametrize(
    ("data", "payload"),
    [
        ("f248cdc9c90700", b"Hello"),
        ("f24805000000ffffcac9c90700", b"Hello"),
        ("000500faff48656c6c6f00", b"Hello"),
        ("f348cdc9c9070000", b"Hello"),
        ("00", b""),
        ("", b""),
    ],
    ids=["one block", "two blocks", "stored", "last block", "empty", "nothing"],
)
def test_the_examples_of_the_specification_are_read(data: str, payload: bytes) -> None:
    assert inflate(bytes.fromhex(data), 100) == payload


def test_a_message_that_is_cut_is_refused() -> None:
    whole = compress(b"The quick brown fox jumps over the lazy dog. " * 3, Setting())
    for cut in range(1, len(whole)):
        with pytest.raises(FrameError) as caught:
            inflate(whole[:cut], 10_000)
        assert caught.value.code == BAD_DATA


def test_what_was_compressed_before_leaves_no_trace() -> None:
    first = compress(b"a message to many", Setting(12))
    compress(b"another message to many", Setting(12))
    assert compress(b"a message to many", Setting(12)) == first  # no context: one frame serves any socket at any time


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused(data: bytes) -> None:
    try:
        payload = inflate(data, 10_000)
    except FrameError as exc:
        code = exc.code
    else:
        code, data = BAD_DATA, payload
    assert code in (BAD_DATA, TOO_BIG)
    assert len(data) <= 10_000


def test_data_behind_the_end_is_refused() -> None:
    deflater = zlib.compressobj(wbits=-15)
    with pytest.raises(FrameError):
        inflate(deflater.compress(b"whole") + deflater.flush(zlib.Z_FINISH) + b"more", 100)
