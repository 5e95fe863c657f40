"""What the text of a failure leaves open: which right or password is missing, whether anything listens. Knows no link."""

from __future__ import annotations

import errno
import re

__all__ = ["advised"]

_WHERE = "SECURITY.md of Antiphon has the whole rule"
# The server's text, with or without its code, which redis-py takes off; 6.2 says it in other words than 7.0.
_DENIED = re.compile(r"no permissions to (?:access .*?(?P<what>channel|key)|run)", re.IGNORECASE)
# Nobody listens: a socket that does not exist, not any other file: those are named in the text.
_NOBODY = re.compile(
    rf"Err(?:no|or) {errno.ECONNREFUSED}\b|Connection refused|Errno {errno.ENOENT}\] [^:]*$|Error {errno.ENOENT} connecting"
)
_KNOWN = (
    (_NOBODY, "is the server running?"),
    (
        re.compile("Authentication required|with the client already authenticated"),
        "it wants a password: redis://:password@host",
    ),
    (re.compile("MOVED "), "it belongs to a cluster: is the option 'cluster' set?"),
    (re.compile("cluster support disabled"), "it belongs to no cluster: remove the option 'cluster'"),
)
_ADVICE = re.compile("|".join([r"\(its account needs ", *(re.escape(f"({advice})") for _, advice in _KNOWN)]))


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
    advice = next((advice for pattern, advice in _KNOWN if pattern.search(reason)), None)
    return f"{reason} ({advice})" if advice else reason
