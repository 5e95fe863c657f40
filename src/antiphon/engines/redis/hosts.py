"""The ``hosts`` option: every form that channels_redis takes, as plain data. Opens no connection, knows no client.

An entry is a URL (``redis://``, ``rediss://``, ``valkey://``, ``valkeys://``, ``unix://``), a ``(host, port)`` pair, or
a dict: with ``address`` (a URL), with ``host`` and ``port`` or ``path``, or with ``master_name`` and ``sentinels``.
Several entries are shards. What a URL says wins over what stands beside it, as redis-py has it.
"""

from __future__ import annotations

import difflib
import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from ...exceptions import OptionError
from ...options import unknown_key

__all__ = ["Address", "FoundHost", "Host", "SentinelHost", "SingleHost", "parse_hosts"]

logger = logging.getLogger("antiphon.engine")

_DEFAULT_PORT = 6379
_SENTINEL_PORT = 26379
_SCHEMES = {"redis": False, "valkey": False, "rediss": True, "valkeys": True}  # scheme -> TLS

_SSL = frozenset({
    "ssl", "ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_certfile", "ssl_keyfile", "ssl_password",
    "ssl_check_hostname", "ssl_min_version", "ssl_ciphers",
})  # fmt: skip
_USED = frozenset({
    "address", "host", "port", "path", "unix_socket_path", "db", "username", "password", "socket_connect_timeout",
    "master_name", "sentinels", "sentinel_kwargs",
}) | _SSL  # fmt: skip
# Options of redis-py that concern its pools, time-outs and decoding; our connections have their own.
_WITHOUT_EFFECT = frozenset({
    "socket_timeout", "socket_keepalive", "socket_keepalive_options", "socket_type", "socket_read_size", "timeout",
    "retry", "retry_on_timeout", "retry_on_error", "health_check_interval", "max_connections", "encoding",
    "encoding_errors", "decode_responses", "protocol", "legacy_responses", "parser_class", "connection_class",
    "client_name", "lib_name", "lib_version", "driver_info", "queue_class", "single_connection_client", "is_master",
    "check_connection", "min_other_sentinels", "auto_close_connection_pool", "maint_notifications_config",
    "redis_connect_func", "command_packer", "event_dispatcher",
})  # fmt: skip
# What is named to whoever wrote something that resembles none of them.
_COMMON = frozenset({
    "address", "host", "port", "path", "db", "username", "password", "socket_connect_timeout", "ssl_ca_certs",
    "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "master_name", "sentinels", "sentinel_kwargs",
})  # fmt: skip
_FORMS = (
    "a URL such as 'redis://localhost:6379/0', a (host, port) pair, or a dict with 'address', with 'host' and 'port',"
    " with 'path', or with 'master_name' and 'sentinels'"
)
# What was logged: one line a process, not one for every layer built from the same settings.
_told: set[str] = set()


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """One server, as a connection needs it. ``path`` is a Unix socket; it takes the place of host and port."""

    host: str = "localhost"
    port: int = _DEFAULT_PORT
    path: str | None = None
    db: int = 0
    username: str | None = None
    password: str | None = None
    ssl: ssl.SSLContext | None = None
    connect_timeout_s: float = 5.0

    @property
    def name(self) -> str:
        """The server in a log or an error: ``host:port`` or the path, never a credential."""
        if self.path is not None:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        tls = " tls" if self.ssl is not None else ""
        user = f" as {self.username!r}" if self.username else ""
        return f"<Address {self.name} db {self.db}{user}{tls}>"


@dataclass(frozen=True, slots=True)
class SingleHost:
    """A server that is always at the same address."""

    address: Address


@dataclass(frozen=True, slots=True)
class SentinelHost:
    """A primary that sentinels know under the name ``service``.

    ``address`` is the template of the primary's: its credentials, database and TLS; the sentinels tell host and port.
    """

    service: str
    sentinels: tuple[Address, ...]
    address: Address


class FoundHost(Protocol):
    """A server that has to be looked for, or started: the embedded one."""

    @property
    def name(self) -> str:
        """What to call it in a log."""

    async def find(self) -> Address:
        """Return where it is. Raises OSError or EngineUnavailable."""

    def find_blocking(self) -> Address:
        """As ``find``, without an event loop."""


Host = SingleHost | SentinelHost | FoundHost


def parse_hosts(hosts: object = None, *, cluster: bool = False) -> tuple[Host, ...]:
    """Return the hosts that the option names, in order; ``redis://localhost:6379`` when it names none.

    ``cluster``: they are servers of one. Raises OptionError for what channels_redis does not take, for options that
    redis-py does not have, and for what a cluster has not.
    """
    if isinstance(hosts, (str, bytes)):
        raise OptionError("You must pass a list of Redis hosts, even if there is only one.")
    if hosts is not None and not isinstance(hosts, (list, tuple)):
        raise OptionError(f"hosts: expected a list, each entry {_FORMS}; got {type(hosts).__name__}")
    if hosts is not None and not hosts:
        # channels_redis takes that for the default; it may as well be a variable of the environment that is not set.
        _tell_once("hosts", "hosts: the list is empty, so localhost:6379 is used; None says that without this line")
    parsed = tuple(_host(entry, f"hosts[{index}]") for index, entry in enumerate(hosts or ()))
    parsed = parsed or (SingleHost(Address()),)
    if cluster:
        _require_for_cluster(parsed)
    else:
        _tell_twins(parsed)
    return parsed


def _require_for_cluster(hosts: tuple[Host, ...]) -> None:
    for index, host in enumerate(hosts):
        if isinstance(host, SentinelHost):
            raise OptionError(
                f"hosts[{index}]: expected a server of the cluster; got sentinels. A cluster finds its primaries by"
                " itself: name some of its servers, or remove 'cluster'"
            )
        if isinstance(host, SingleHost) and host.address.db:
            raise OptionError(f"hosts[{index}]: db: a cluster has database 0 alone; got {host.address.db}")


def _tell_twins(hosts: tuple[Host, ...]) -> None:
    # No error: settings that work with channels_redis go on working, and nothing is lost by it.
    seen: dict[Any, int] = {}
    for index, host in enumerate(hosts):
        if isinstance(host, SingleHost):
            first = seen.setdefault((host.address.name, host.address.db), index)
            if first != index:
                _tell_once("twins", f"hosts[{first}] and hosts[{index}] are one server; shards on it bring nothing")


def _host(entry: object, where: str) -> Host:
    if not isinstance(entry, Mapping):
        return SingleHost(_address(_settings(entry, where), where))
    if "master_name" in entry or "sentinels" in entry:
        return _sentinel_host(entry, where)
    return SingleHost(_address(_settings(entry, where), where))


def _sentinel_host(entry: Mapping[str, Any], where: str) -> SentinelHost:
    service, sentinels = entry.get("master_name"), entry.get("sentinels")
    if not isinstance(service, str) or not service:
        raise OptionError(f"{where}['master_name']: expected the name that the sentinels know; got {service!r}")
    if not isinstance(sentinels, (list, tuple)) or not sentinels:
        raise OptionError(f"{where}['sentinels']: expected a list of (host, port) pairs; got {_shape(sentinels)}")
    if "address" in entry:
        raise OptionError(f"{where}: expected 'address' or 'master_name'; got both: the sentinels tell the address")
    extra = entry.get("sentinel_kwargs") or {}
    if not isinstance(extra, Mapping):
        raise OptionError(f"{where}['sentinel_kwargs']: expected a dict; got {_shape(extra)}")
    own = {key: value for key, value in entry.items() if key not in ("master_name", "sentinels", "sentinel_kwargs")}
    if "socket_connect_timeout" in own:
        extra = {"socket_connect_timeout": own["socket_connect_timeout"], **extra}
    addresses = []
    for index, sentinel in enumerate(sentinels):
        place = f"{where}['sentinels'][{index}]"
        settings = {"port": _SENTINEL_PORT, **extra, **_settings(sentinel, place)}
        addresses.append(replace(_address(settings, place), db=0))  # a sentinel has no databases
    return SentinelHost(service, tuple(addresses), _address(_settings(own, where), where))


def _settings(entry: object, where: str) -> dict[str, Any]:
    """Bring one entry into one flat dict of options."""
    if isinstance(entry, str):
        return _from_url(entry, where)
    if isinstance(entry, (tuple, list)) and len(entry) == 2:
        return {"host": entry[0], "port": entry[1]}
    if isinstance(entry, Mapping):
        settings = dict(entry)
        if settings.get("address") is not None:
            address = settings["address"]
            if isinstance(address, (str, tuple, list)):
                return {**settings, **_settings(address, f"{where}['address']")}
            raise OptionError(f"{where}['address']: expected a URL; got {_shape(address)}")
        return settings
    raise OptionError(f"{where}: expected {_FORMS}; got {_shape(entry)}")


def _from_url(url: str, where: str) -> dict[str, Any]:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise OptionError(f"{where}: the URL is malformed; percent-encode / @ : [ ] in a password") from None
    try:
        port = parts.port
    except ValueError:
        # Without its cause: that text may repeat a part of the URL, and with it the password.
        raise OptionError(
            f"{where}: the URL is malformed: its port is no number from 1 to 65535; percent-encode / @ : [ ] in a password"
        ) from None
    if parts.scheme != "unix" and parts.scheme not in _SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in (*_SCHEMES, "unix"))
        raise OptionError(
            f"{where}: expected a URL that starts with one of {known}, or a (host, port) pair; got scheme"
            f" {parts.scheme!r}"
        )
    settings: dict[str, Any] = dict(parse_qsl(parts.query))
    if parts.username:
        settings["username"] = unquote(parts.username)
    if parts.password:
        settings["password"] = unquote(parts.password)
    if parts.scheme == "unix":
        if not parts.path:
            raise OptionError(f"{where}: expected a path, as in unix:///run/valkey/valkey.sock; got none")
        return {**settings, "path": unquote(parts.path)}
    if parts.hostname:
        settings["host"] = unquote(parts.hostname)
    if port:
        settings["port"] = port
    database = unquote(parts.path).strip("/")
    if database and "db" not in settings:
        settings["db"] = database
    if _SCHEMES[parts.scheme]:
        settings["ssl"] = True
    return settings


def _address(settings: Mapping[str, Any], where: str) -> Address:
    idle = []
    for key in settings:
        if key in _USED:
            continue
        if key not in _WITHOUT_EFFECT:
            near = difflib.get_close_matches(str(key), _USED | _WITHOUT_EFFECT, n=1)
            raise OptionError(f"{where}: {unknown_key(key, set(near or _COMMON), 'option')}")
        idle.append(key)
    _tell(idle)
    path = settings.get("path") or settings.get("unix_socket_path")
    timeout_s = _number(settings.get("socket_connect_timeout"), f"{where}: socket_connect_timeout")
    return Address(
        host=_text(settings.get("host"), f"{where}: host") or "localhost",
        port=_integer(settings.get("port"), _DEFAULT_PORT, 1, 65535, f"{where}: port"),
        path=_text(path, f"{where}: path"),
        db=_integer(settings.get("db"), 0, 0, 1 << 31, f"{where}: db"),
        username=_text(settings.get("username"), f"{where}: username") or None,
        password=_text(settings.get("password"), f"{where}: password", secret=True) or None,
        ssl=_ssl_context(settings, where) if path is None else None,
        connect_timeout_s=5.0 if timeout_s is None else timeout_s,
    )


def _tell_once(about: str, text: str) -> None:
    if about not in _told:
        _told.add(about)
        logger.warning(text)


def _tell(names: list[str]) -> None:
    fresh = sorted(set(names) - _told)
    if fresh:
        _told.update(fresh)
        logger.info("hosts: %s: accepted without effect, connections here have their own", ", ".join(fresh))


def _ssl_context(settings: Mapping[str, Any], where: str) -> ssl.SSLContext | None:
    # channels_redis has no "ssl": there it is chosen by the URL or by redis-py's class of connection.
    by_class = "SSL" in getattr(settings.get("connection_class"), "__name__", "")
    if not (_truth(settings.get("ssl", False), f"{where}: ssl") or by_class):
        return None
    required = _verify_mode(settings.get("ssl_cert_reqs", "required"), f"{where}: ssl_cert_reqs")
    try:
        context = ssl.create_default_context(
            cafile=settings.get("ssl_ca_certs"),
            capath=settings.get("ssl_ca_path"),
            cadata=settings.get("ssl_ca_data"),
        )
        checked = _truth(settings.get("ssl_check_hostname", True), f"{where}: ssl_check_hostname")
        context.check_hostname = checked and required != ssl.CERT_NONE
        context.verify_mode = required
        if settings.get("ssl_certfile"):
            context.load_cert_chain(settings["ssl_certfile"], settings.get("ssl_keyfile"), settings.get("ssl_password"))
        if settings.get("ssl_min_version") is not None:
            context.minimum_version = ssl.TLSVersion(int(settings["ssl_min_version"]))
        if settings.get("ssl_ciphers"):
            context.set_ciphers(settings["ssl_ciphers"])
    except (OSError, ValueError, TypeError) as exc:  # an SSLError is an OSError
        raise OptionError(f"{where}: the ssl options do not make a TLS context: {exc}") from exc
    return context


def _verify_mode(value: object, what: str) -> ssl.VerifyMode:
    modes = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
    if value is None:
        return ssl.CERT_NONE
    if isinstance(value, str):
        # Some write the constant's name into the URL: ?ssl_cert_reqs=CERT_NONE.
        mode = modes.get(value.lower().removeprefix("cert_"))
        if mode is not None:
            return mode
    elif isinstance(value, int) and value in modes.values():
        return ssl.VerifyMode(value)
    raise OptionError(f"{what}: expected 'required', 'optional', 'none' or None; got {value!r}")


def _truth(value: object, what: str) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "yes", "1", "t", "y", "false", "no", "0", "f", "n"):
        return value.lower() in ("true", "yes", "1", "t", "y")
    raise OptionError(f"{what}: expected True or False; got {value!r}")


def _text(value: object, what: str, *, secret: bool = False) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode()
    raise OptionError(f"{what}: expected text; got {type(value).__name__ if secret else repr(value)}")


def _integer(value: object, default: int, least: int, most: int, what: str) -> int:
    if value is None:
        return default
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    raise OptionError(f"{what}: expected a number from {least} to {most}; got {value!r}")


def _number(value: object, what: str) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value)  # type: ignore[arg-type]  # what float() does not take is refused below
    except (TypeError, ValueError):
        seconds = -1.0
    if isinstance(value, bool) or not 0 < seconds < float("inf"):
        raise OptionError(f"{what}: expected seconds, more than 0; got {value!r}")
    return seconds


def _shape(value: object) -> str:
    # Not its repr: an entry of hosts may hold a password.
    return "None" if value is None else type(value).__name__
