"""Sealed bodies: opened with any of the keys, for the same topic and header alone."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.envelope import MESSAGE, mark_again, pack, unpack
from antiphon.exceptions import OptionError
from antiphon.layer import cipher as module
from antiphon.layer.cipher import OVERHEAD_BYTES, Cipher

HEADER = bytes(range(0xA0, 0xA0 + 28))
CIPHER = Cipher(["first", b"second"])


@given(st.text(max_size=20), st.binary(min_size=28, max_size=60), st.binary(max_size=200))
def test_what_is_sealed_is_opened_again(topic: str, header: bytes, body: bytes) -> None:
    sealed = CIPHER.seal(topic, header, body)
    assert len(sealed) == len(body) + OVERHEAD_BYTES
    assert CIPHER.open(topic, header, sealed) == body


def test_no_two_sealed_bodies_are_alike_nor_show_what_is_inside() -> None:
    sealed = [CIPHER.seal("g:a", HEADER, b"secret text") for _ in range(1000)]
    assert len({one[4:16] for one in sealed}) == 1000
    assert not any(b"secret" in one for one in sealed)


@given(st.data())
def test_a_changed_byte_anywhere_is_refused(data: st.DataObject) -> None:
    parts = [b"g:room", HEADER, CIPHER.seal("g:room", HEADER, b"body")]
    which = data.draw(st.integers(0, 2))
    at = data.draw(st.integers(0, len(parts[which]) - 1))
    changed = bytearray(parts[which])
    changed[at] ^= data.draw(st.integers(1, 127))
    parts[which] = bytes(changed)
    with pytest.raises(ValueError, match=r"sealed"):
        CIPHER.open(parts[0].decode(), parts[1], parts[2])


def test_a_body_that_is_cut_short_is_refused_at_every_length() -> None:
    sealed = CIPHER.seal("g:a", HEADER, b"body")
    for length in range(len(sealed)):
        with pytest.raises(ValueError, match="sealed"):
            CIPHER.open("g:a", HEADER, sealed[:length])


@given(st.binary(max_size=100))
def test_foreign_bytes_are_refused(sealed: bytes) -> None:
    with pytest.raises(ValueError, match="sealed"):
        CIPHER.open("g:a", HEADER, sealed)


def test_the_boundary_between_topic_and_header_is_bound_too() -> None:
    header = bytes(60)  # its period is the same wherever it is cut
    sealed = CIPHER.seal("g:a\0", header, b"body")
    with pytest.raises(ValueError, match="sealed"):
        CIPHER.open("g:a", b"\0" + header, sealed)


def test_the_first_key_seals_and_every_key_opens() -> None:
    old, new = Cipher(["old"]), Cipher(["new", "old"])
    assert new.open("g:a", HEADER, old.seal("g:a", HEADER, b"body")) == b"body"
    with pytest.raises(ValueError, match="not among ours"):
        old.open("g:a", HEADER, new.seal("g:a", HEADER, b"body"))
    # In the middle of a rotation: those who know both, but still seal with the old one.
    between = Cipher(["old", "new"])
    assert old.open("g:a", HEADER, between.seal("g:a", HEADER, b"body")) == b"body"
    assert between.open("g:a", HEADER, new.seal("g:a", HEADER, b"body")) == b"body"


def test_a_key_is_the_same_as_text_and_as_bytes_and_may_be_given_twice() -> None:
    sealed = Cipher(["köy"]).seal("g:a", HEADER, b"body")
    assert Cipher(("other", "köy".encode(), "köy")).open("g:a", HEADER, sealed) == b"body"


def test_a_message_marked_as_sent_again_opens_as_the_first_did() -> None:
    def seal(header: bytes, body: bytes) -> bytes:
        return CIPHER.seal("g:a", header, body)

    for extra in (None, {"x": ["a!b"]}):
        payload = pack(MESSAGE, 7, 8, 9, b"body", extra, seal)
        for sent in (payload, mark_again(payload)):
            envelope = unpack(sent, "g:a")
            assert CIPHER.open("g:a", envelope.header, envelope.body) == b"body"
        # Its extra section is bound as well.
        envelope = unpack(pack(MESSAGE, 7, 8, 9, payload[-36:], {"x": ["a!c"]}), "g:a")
        with pytest.raises(ValueError, match="sealed"):
            CIPHER.open("g:a", envelope.header, envelope.body)


def test_what_seals_changes_with_time_and_is_found_again_by_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PERIODS_MAX", 3)
    cipher = Cipher(["key"])
    headers = [HEADER[:20] + hour.to_bytes(4) + HEADER[24:] for hour in range(10)]
    sealed = [cipher.seal("g:a", header, b"body") for header in headers]
    assert [cipher.open("g:a", header, one) for header, one in zip(headers, sealed, strict=True)] == [b"body"] * 10
    assert len(cipher._aeads) <= 3
    keys = {module._derive(cipher._secrets[cipher._sealing_id], b"body" + header[20:24]) for header in headers}
    assert len(keys) == 10


def test_the_format_holds() -> None:
    # Golden bytes: what an earlier release sealed must open for ever.
    sealed = bytes.fromhex("78c76e8aac5fdf9e7b455b7462c24128a9affa9864cadefea25a40ee717ac322d727c492")
    assert Cipher(["golden"]).open("g:room", bytes.fromhex("a7010002") + bytes(range(24)), sealed) == b"\x81\xa1a\x01"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("secret", "must be a list of possible keys; got one str"),
        (b"secret", "must be a list of possible keys; got one bytes"),
        ({"secret"}, "must be a list of possible keys; got one set"),
        (7, "must be a list of possible keys; got one int"),
        ([], "at least one key"),
        (["secret", ""], r"symmetric_encryption_keys\[1\]: .* an empty one"),
        ([None], r"symmetric_encryption_keys\[0\]: .* NoneType"),
        ([b""], "an empty one"),
        ([7], "got int"),
    ],
)
def test_wrong_keys_are_refused_without_being_shown(keys: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        Cipher(keys)
    assert "secret" not in str(caught.value).replace("must be", "")


def test_nothing_shows_a_key() -> None:
    cipher = Cipher(["hunter2", "hunter3"])
    assert "hunter" not in repr(cipher)
    assert not any(b"hunter" in secret for secret in cipher._secrets.values())


def test_without_the_package_the_error_says_what_to_install() -> None:
    program = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "cryptography":
            raise ModuleNotFoundError("blocked: " + name)
sys.meta_path.insert(0, Blocked())
from antiphon.exceptions import MissingExtra
from antiphon.layer.cipher import Cipher
try:
    Cipher(["key"])
except MissingExtra as exc:
    print(exc)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=50)
    assert 'pip install "antiphon[encryption]"' in done.stdout
