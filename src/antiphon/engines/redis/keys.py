"""The names of keys and pub/sub channels on the server. All of them start with ``<prefix>:a1:``; nothing here does I/O."""

from __future__ import annotations

from hashlib import sha1

from ...exceptions import OptionError
from ...names import DEAD

__all__ = ["Keys", "idempotency_key", "log_keys"]

# What a pattern of SCAN would take for something else, and what would move a key to another slot of a cluster.
_FORBIDDEN = frozenset("{}*?[]\\^")
_LONGEST_PREFIX = 100


class Keys:
    """The names below one ``prefix``.

    A queue and its ``.dead`` queue share a hash tag, so that all their keys live in one slot of a cluster.
    """

    __slots__ = ("bound", "pattern", "prefix", "root")

    def __init__(self, prefix: str) -> None:
        _check_prefix(prefix)
        self.prefix = prefix
        self.root = f"{prefix}:a1:".encode()
        # The registry of worker channels that are members of groups: topic NUL queue, scored by when that ends.
        self.bound = self.root + b"bound"
        # For SCAN MATCH: every key of ours and no other. The prefix has no character that a pattern would interpret.
        self.pattern = self.root + b"*"

    def __repr__(self) -> str:
        return f"<Keys {self.root.decode()!r}>"

    def channel(self, topic: str) -> bytes:
        """Return the pub/sub channel of a topic. The hash tag is for the keys of its log: they share its slot."""
        return b"%b{%b}" % (self.root, topic.encode())

    def topic(self, channel: bytes) -> str:
        """Return the topic of a pub/sub channel, the inverse of ``channel``."""
        return channel[len(self.root) + 1 : -1].decode()

    def queue(self, name: str) -> bytes:
        """Return what all keys of the queue ``name`` start with."""
        alive = name
        while alive.endswith(DEAD):
            alive = alive[: -len(DEAD)]
        return self.root + f"{{q:{alive}}}{name[len(alive) :]}".encode()

    def wake(self, name: str, node: str) -> bytes:
        """Return the pub/sub channel on which ``node`` learns that the queue ``name`` has something to read."""
        return self.queue(name) + f"w:{node}".encode()


def log_keys(channel: bytes) -> tuple[bytes, bytes]:
    """Return the keys of the log of a topic, given its channel: what is known of it, and the messages."""
    return channel + b"m", channel + b"h"


def idempotency_key(channel: bytes, key: str) -> bytes:
    """Return the key that remembers an idempotency key: a digest, so that nothing a sender chooses is in a name."""
    return b"%bi:%b" % (channel, sha1(key.encode(), usedforsecurity=False).hexdigest().encode())


def _check_prefix(prefix: object) -> None:
    fits = isinstance(prefix, str) and prefix.isprintable() and " " not in prefix  # an ACL rule ends at a space
    if not isinstance(prefix, str) or not fits or not 0 < len(prefix) <= _LONGEST_PREFIX:
        raise OptionError(
            f"prefix: expected 1 to {_LONGEST_PREFIX} printable characters, no space; got {prefix!r:.200}"
        )
    wrong = sorted(_FORBIDDEN.intersection(prefix))
    if wrong:
        raise OptionError(
            f"prefix: {' '.join(wrong)} would change the meaning of patterns or the place of keys in a cluster;"
            f" use another character than in {prefix!r}"
        )
