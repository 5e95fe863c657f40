"""Who is in which group, as the engine knows it: one node's part, and what is asked of it."""

from .announcements import JOIN, LEAVE, Announcements, each_user, key_of
from .presence import LEASE_S, Presence
from .rosters import Member, PresenceStats, Roster, Rosters, info_codec

__all__ = [
    "JOIN",
    "LEASE_S",
    "LEAVE",
    "Announcements",
    "Member",
    "Presence",
    "PresenceStats",
    "Roster",
    "Rosters",
    "each_user",
    "info_codec",
    "key_of",
]
