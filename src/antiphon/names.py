"""The names of channels and groups: what is allowed, and the topics they map to. Knows no layer and no engine."""

from __future__ import annotations

import re
import secrets

__all__ = [
    "DEAD",
    "INVALID_NAME_ERROR",
    "MAX_NAME_LENGTH",
    "UNSUBSCRIBE",
    "control_topic",
    "group_topic",
    "inbox_topic",
    "is_local",
    "known_groups",
    "new_node_id",
    "node_of",
    "queue_topic",
    "require_channel",
    "require_group",
    "user_topic",
]

# What the name of the worker channel for messages that nobody could handle ends in. It has none of its own.
DEAD = ".dead"

# The type of the word that somebody was taken out of a group.
UNSUBSCRIBE = "antiphon.unsubscribe"

# As Channels has them (a name is shorter than 100), but ASCII only and without a trailing newline: what its
# expressions let through by "$" and "\d" no engine's key space should see.
MAX_NAME_LENGTH = 100
INVALID_NAME_ERROR = (
    "{} name must be a valid unicode string "
    f"with length < {MAX_NAME_LENGTH} "
    "containing only ASCII alphanumerics, hyphens, underscores, or periods."
)
_GROUP = re.compile(r"[a-zA-Z0-9\-_.]{1,99}")
_CHANNEL = re.compile(r"[a-zA-Z0-9\-_.]+(![a-zA-Z0-9\-_.]*)?")

# A name is checked on every send; the same few names come again and again. Cleared when full, never grows past it.
_KNOWN_MAX = 20_000
known_groups: set[str] = set()  # group_send looks here before it calls require_group
_known_channels: set[str] = set()


def _refuse(kind: str, name: object) -> TypeError:
    return TypeError(f"{INVALID_NAME_ERROR.format(kind)} Got {name!r:.120}")


def require_group(name: str) -> None:
    """Raise TypeError unless ``name`` is a valid group name."""
    # The type first: an unhashable name must get our error, not that of the set.
    if type(name) is str and name in known_groups:
        return
    if not isinstance(name, str) or not _GROUP.fullmatch(name):
        raise _refuse("Group", name)
    if len(known_groups) >= _KNOWN_MAX:
        known_groups.clear()
    known_groups.add(name)


def require_channel(name: str, *, receive: bool = False) -> None:
    """Raise TypeError unless ``name`` is a valid channel name."""
    if not (type(name) is str and name in _known_channels):  # names of nodes come by the thousand: not remembered
        if not isinstance(name, str) or len(name) >= MAX_NAME_LENGTH or not _CHANNEL.fullmatch(name):
            raise _refuse("Channel", name)
        if "!" not in name:
            if len(_known_channels) >= _KNOWN_MAX:
                _known_channels.clear()
            _known_channels.add(name)
    if receive and "!" in name and not name.endswith("!"):
        raise TypeError("Specific channel names in receive() must end at the !")


def is_local(channel: str) -> bool:
    """Say whether a channel belongs to one node, as opposed to a worker channel."""
    return "!" in channel


def new_node_id() -> str:
    """Make the id of a node: 12 hexadecimal digits, random, so that no two processes need to agree."""
    return secrets.token_hex(6)


def node_of(channel: str) -> str | None:
    """Return the id of the node that owns ``channel``, or None for a worker channel.

    ``specific.<node>!<id>`` and any other prefix that ends in the node's id.
    """
    head, mark, _ = channel.partition("!")
    return head.rpartition(".")[2] if mark else None


# Topics live in a name space of their own: a group called "n.x" can never meet a node's inbox.


def group_topic(group: str) -> str:
    """Return the topic of a group."""
    return "g:" + group


def user_topic(user: str) -> str:
    """Return the topic of all connections of one user; ``user`` is any text."""
    return "u:" + user


def inbox_topic(node: str) -> str:
    """Return the topic of one node's inbox."""
    return "n:" + node


def queue_topic(channel: str) -> str:
    """Return what stands for a topic where a message goes straight to a worker channel: nobody subscribes to it."""
    return "q:" + channel


def control_topic() -> str:
    """Return the topic that every node listens to."""
    return "c:"
