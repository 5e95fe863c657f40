"""What the text of a failure leaves open: which right is missing, and whether anything listens at all. Knows no link."""

from __future__ import annotations

import errno
import re

__all__ = ["advised"]

_WHERE = "SECURITY.md of Antiphon has the whole rule"
# The server's text, with or without its code, which redis-py takes off; 6.2 says it in other words than 7.0.
_DENIED = re.compile(r"no permissions to (?:access .*?(?P<what>channel|key)|run)", re.IGNORECASE)
# A socket that does not exist, not any other file: those are named in the text.
_NOBODY = re.compile(
    rf"Err(?:no|or) {errno.ECONNREFUSED}\b|Connection refused|Errno {errno.ENOENT}\] [^:]*$|Error {errno.ENOENT} connecting"
)
_ADVICE = re.compile(r"\(its account needs |\(is the server running\?\)")


def advised(reason: str, prefix: str) -> str:
    """Return the reason of a failure without its full stop, with what to do about it where that is known.

    ``prefix``: what the names of keys and channels begin with.
    """
    reason = reason.rstrip(".")
    if _ADVICE.search(reason):
        return reason
    denied = _DENIED.search(reason)
    if denied is not None:
        channels, keys = f"&{prefix}:a1:*", f"~{prefix}:a1:*"
        what = {"channel": channels, "key": keys}.get((denied["what"] or "").lower())
        return f"{reason} (its account needs {what or f'that command, {keys} and {channels}'}; {_WHERE})"
    if _NOBODY.search(reason):
        return f"{reason} (is the server running?)"
    return reason
