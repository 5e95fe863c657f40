"""The options that belong to no layer (Django: the ``ANTIPHON`` setting): names, defaults, checks."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import framework
from .exceptions import OptionError

__all__ = ["OPTIONS", "Option", "get", "parse_rate", "unknown_key", "validate"]


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its default, what it accepts, and what it is for."""

    name: str
    default: Any
    check: Callable[[Any], bool]
    expects: str
    doc: str


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _hook(value: Any) -> bool:
    return callable(value) or (isinstance(value, str) and "." in value)


def _rate(value: Any) -> bool:
    try:
        parse_rate(value)
    except OptionError:
        return False
    return True


def _optional(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


def _names(value: Any) -> bool:
    return isinstance(value, (list, tuple, set)) and all(isinstance(item, str) for item in value)


_JWT = {"algorithm", "private_key", "public_key", "secret"}

_TABLE = (
    Option("sync_threads", 32, _count, "a positive int", "Threads of a process that run synchronous handlers."),
    Option(
        "disconnect_grace_s",
        10.0,
        _optional(lambda v: _positive(v) or v == 0),
        "seconds, 0 or more, or None for no limit",
        "How long an async handler may go on after its client is gone, before it is cancelled.",
    ),
    Option("receive_limit_frames", 64, _count, "a positive int", "Frames of one client that wait for its consumer."),
    Option("receive_limit_bytes", 1 << 20, _count, "a positive int", "Bytes of one client that wait, likewise."),
    Option("max_message_bytes", 1 << 20, _count, "a positive int", "Largest frame a client may send, in bytes."),
    Option("rate_limit", None, _optional(_rate), "a rate such as '20/s' or '300/m', or None", "Frames of one client."),
    Option("max_connections_per_user", None, _optional(_count), "a positive int or None", "Open sockets of one user."),
    Option(
        "revalidate_interval_s",
        None,
        _optional(_positive),
        "seconds, or None for never",
        "How often an open connection's session and user are checked again.",
    ),
    Option("on_drop", None, _optional(_hook), "a callable or its dotted path, or None", "Called with every Drop."),
    Option(
        "on_lost",
        None,
        _optional(_hook),
        "a callable or its dotted path, or None",
        "Called with every Loss: what an engine could not vouch for, once a topic and node.",
    ),
    Option(
        "on_publish_error",
        None,
        _optional(_hook),
        "a callable or its dotted path, or None",
        "Called with (exception, send) for each send after a commit that failed for good.",
    ),
    Option("publish_retry_s", 2.0, lambda v: _positive(v) or v == 0, "seconds, 0 or more", "How long it is retried."),
    Option("ticket_max_age_s", 30, _positive, "seconds", "How old a one-use ticket may be."),
    Option(
        "send_buffer_limit",
        1 << 16,
        _count,
        "a positive int",
        "Bytes that may wait for a client that reads slowly, before its messages wait in its consumer's mailbox.",
    ),
    # Of antiphon.server alone.
    Option("handshake_timeout_s", 5.0, _positive, "seconds", "How long the request for a connection may take."),
    Option("accept_timeout_s", 5.0, _positive, "seconds", "How long an application may take to accept a WebSocket."),
    Option("send_timeout_s", 30.0, _positive, "seconds", "How long a client may read nothing before it is cut off."),
    Option("close_timeout_s", 10.0, _positive, "seconds", "How long a client may take to answer a close frame."),
    Option(
        "drain_s", 5.0, lambda v: _positive(v) or v == 0, "seconds, 0 or more", "Over what an ending server closes."
    ),
    Option("max_fragments", 100_000, _count, "a positive int", "Frames that one message of a client may come in."),
    Option("max_headers", 100, _count, "a positive int", "Headers that a handshake may have."),
    Option("deflate", False, lambda v: isinstance(v, bool), "True or False", "Whether to offer compression."),
    Option(
        "jwt",
        None,
        _optional(lambda v: isinstance(v, Mapping) and bool(v) and v.keys() <= _JWT),
        "a dict of secret, public_key, private_key and algorithm, or None",
        "Tokens of subscriptions are JSON Web Tokens, made and read so; None: they are signed by Django.",
    ),
    Option(
        "signing_keys",
        (),
        lambda v: isinstance(v, (list, tuple)) and all(isinstance(key, (str, bytes)) and key for key in v),
        "a list of str or bytes",
        "What tokens of positions are signed with, the first, and read with; (): Django's SECRET_KEY and its fallbacks.",
    ),
    Option("allowed_origins", None, _optional(_names), "a list of origins, or None for ALLOWED_HOSTS", "Origin check."),
)

OPTIONS: dict[str, Option] = {option.name: option for option in _TABLE}


def get(name: str) -> Any:
    """Return the value of an option: the configured one, else its default."""
    option = OPTIONS[name]
    configured = framework.current().options()
    if name not in configured:
        return option.default
    value = configured[name]
    if not option.check(value):
        raise OptionError(f"ANTIPHON[{name!r}]: expected {option.expects}; got {value!r}")
    return value


def validate(mapping: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a mapping of options, a sentence each."""
    problems = []
    for name, value in mapping.items():
        option = OPTIONS.get(name)
        if option is None:
            problems.append(unknown_key(name, OPTIONS, "ANTIPHON option"))
        elif not option.check(value):
            problems.append(f"ANTIPHON[{name!r}]: expected {option.expects}; got {value!r}")
    return problems


def unknown_key(name: object, known: Mapping[str, Any] | set[str], what: str) -> str:
    """Say that ``name`` is unknown, what it may have meant, and what there is."""
    near = sorted(each for each in known if each.startswith(f"{name}_"))  # "history": there is more than one of it
    near = near or difflib.get_close_matches(str(name), list(known), n=1)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else f"; known: {', '.join(sorted(known))}"
    return f"unknown {what} {name!r}{hint}"


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_rate(rate: Any) -> tuple[int, float]:
    """Parse ``'20/s'``, ``'300/m'``, ``'5/10s'`` or ``(20, 1.0)`` into (count, seconds)."""
    if isinstance(rate, tuple) and len(rate) == 2 and _count(rate[0]) and _positive(rate[1]):
        return rate[0], float(rate[1])
    if isinstance(rate, str):
        count, slash, period = rate.partition("/")
        unit = period.strip()[-1:]
        amount = period.strip()[:-1] or "1"
        # isdecimal, not isdigit: int() does not take "²".
        numbers = slash and unit in _UNITS and count.strip().isdecimal() and amount.isdecimal()
        if numbers and int(count) > 0 and int(amount) > 0:
            return int(count), int(amount) * _UNITS[unit]
    raise OptionError(f"rate_limit: expected '20/s', '300/m', '5/10s' or (count, seconds); got {rate!r}")
