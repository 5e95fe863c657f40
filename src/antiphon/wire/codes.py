"""Why a connection ends, and the close code that says so in each client protocol. Code names reasons, never numbers.

Clients disagree on which codes mean "do not come back": Centrifuge clients stop for 3500-3999 and 4500-4999,
y-websocket for 4400-4499, htmx retries 1001, 1005, 1006, 1011-1014. Hence one column a protocol. The numbers for Centrifuge
are those of its own server, where that has one; what only that protocol knows stands in ``centrifuge/tables.py``.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["REASONS", "Codes", "close_code", "normal_disconnect"]


class Codes(NamedTuple):
    """The codes of one reason; ``final`` says that the client should not come back by itself."""

    centrifuge: int
    yjs: int
    plain: int
    final: bool


REASONS: dict[str, Codes] = {
    "slow": Codes(3008, 1013, 1013, final=False),
    "restart": Codes(3001, 1012, 1012, final=False),
    "error": Codes(3004, 1011, 1011, final=False),
    "revoked": Codes(3503, 4403, 4403, final=True),
    "unauthenticated": Codes(3500, 4401, 4401, final=True),
    "bad_frame": Codes(3501, 4400, 1007, final=True),
    "too_big": Codes(3501, 4413, 1009, final=True),
    "rate_limit": Codes(3509, 4429, 1008, final=True),
    "too_many_connections": Codes(3504, 4430, 4430, final=True),
}


def close_code(reason: str, protocol: str = "plain") -> int:
    """Return the close code for ``reason``; ``protocol``: plain, centrifuge or yjs."""
    try:
        codes = REASONS[reason]
    except KeyError:
        raise ValueError(f"unknown close reason {reason!r}; known: {', '.join(REASONS)}") from None
    code: int = getattr(codes, protocol)
    return code


def normal_disconnect(code: int | None) -> int:
    """Return the code a consumer sees: a lost connection is 1006 whichever way the server reports it.

    Without a close frame some servers say 1005 ("no status received"), others 1006 ("abnormal closure");
    https://www.rfc-editor.org/rfc/rfc6455#section-7.1.5 keeps 1005 for a close frame without a code, which no
    application tells apart from a loss.
    """
    return 1006 if code is None or code == 1005 else code
