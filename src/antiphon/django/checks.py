"""What ``manage.py check`` says about Antiphon's settings. Each hint says what to do; nothing here raises."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from inspect import Parameter, signature
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, Tags
from django.core.checks import Warning as Caution
from django.core.management import get_commands

from .. import framework, options
from ..exceptions import MissingExtra
from ..layer.layer import ChannelLayer
from ..layer.memory import InMemoryChannelLayer
from .group_checks import check_groups
from .tables import find_missing_table, sessions_in_database

__all__ = [
    "check_apps",
    "check_layers",
    "check_options",
    "check_origins",
    "check_tables",
    "check_tickets",
    "register",
]

_LAYER_KEYS = {"BACKEND", "CONFIG", "TEST_CONFIG"}
_MEMORY = "antiphon.layers.InMemoryChannelLayer"
_SHARED_LAYERS = "a layer that crosses processes (embedded, Redis/Valkey)"

Check = Callable[..., list[CheckMessage]]


def register() -> None:
    """Make the checks known to Django. May be called again."""
    everywhere: Sequence[Check] = (check_layers, check_options, check_apps)
    for check in everywhere:
        checks.register(check, "antiphon")
    checks.register(check_tables, "antiphon", Tags.database)
    checks.register(check_tickets, "antiphon", deploy=True)
    checks.register(check_origins, "antiphon", deploy=True)


def check_layers(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Check ``CHANNEL_LAYERS``: E001 to E004, W001, W006, W010, W011."""
    layers = getattr(settings, "CHANNEL_LAYERS", None) or {}
    if not isinstance(layers, Mapping):
        return [
            Error(
                f"CHANNEL_LAYERS: expected a dict of alias -> {{'BACKEND': …}}; got {layers!r:.120}",
                hint=f'Such as CHANNEL_LAYERS = {{"default": {{"BACKEND": "{_MEMORY}"}}}}.',
                id="antiphon.E001",
            )
        ]
    found = [message for alias, parts in layers.items() for message in _check_layer(alias, parts)]
    if not layers and not settings.DEBUG:
        found.append(_only_one_process("default", "CHANNEL_LAYERS is not set, so the layer in memory is used."))
    return found


def _check_layer(alias: str, parts: Any) -> Iterator[CheckMessage]:
    where = f"CHANNEL_LAYERS[{alias!r}]"
    if not isinstance(parts, Mapping) or "BACKEND" not in parts:
        yield Error(
            f"{where}: expected a dict with a BACKEND; got {parts!r:.120}",
            hint=f'Such as {{"BACKEND": "{_MEMORY}", "CONFIG": {{"capacity": 1000}}}}.',
            id="antiphon.E001",
        )
        return
    for name in parts:
        if name not in _LAYER_KEYS:
            yield Error(
                f"{where}: {options.unknown_key(name, _LAYER_KEYS, 'key')}",
                hint="Options of the layer go into its CONFIG.",
                id="antiphon.E002",
            )
    path = parts["BACKEND"]
    if not framework.compat and isinstance(path, str) and path.split(".")[0] in ("channels", "channels_redis"):
        yield _foreign(where, path)
    try:
        module, _, attribute = path.rpartition(".")
        backend = getattr(import_module(module), attribute)
    except Exception as exc:  # whatever an import of somebody's module raises, a check reports
        yield Error(
            f"{where}: cannot import BACKEND {path!r}: {type(exc).__name__}: {exc}",
            hint=f'BACKEND is the dotted path of a class, such as "{_MEMORY}".',
            id="antiphon.E003",
        )
        return
    for key in ("CONFIG", "TEST_CONFIG"):
        try:
            problem = _config_problem(backend, parts.get(key, {}))
        except MissingExtra as exc:
            yield Error(f"{where}: {exc}", hint="Install it wherever the project runs.", id="antiphon.E003")
            break
        if problem:
            yield Error(f"{where}[{key!r}]: {problem}", hint="Correct or remove the option.", id="antiphon.E004")
        elif key == "CONFIG" and isinstance(backend, type) and issubclass(backend, ChannelLayer):
            yield from check_groups(f"{where}[{key!r}]", backend(**parts.get(key, {})))
    if isinstance(backend, type) and issubclass(backend, InMemoryChannelLayer) and not settings.DEBUG:
        yield _only_one_process(alias, f"{where} is the layer in memory.")


def _foreign(where: str, path: str) -> CheckMessage:
    if path.startswith("channels."):
        return Caution(
            f"{where}: BACKEND {path!r} is of the package channels.",
            hint=f'Use "{_MEMORY}", or call antiphon.install_as_channels() in the project package\'s __init__.py.',
            id="antiphon.W006",
        )
    return Caution(
        f"{where}: BACKEND {path!r} is a layer written for Channels: consumers run over it, but user_send, "
        "close_user, exclude= and the counters of drops do not exist there.",
        hint='Use "antiphon.layers.RedisChannelLayer", which takes the same CONFIG. The two do not hear each other: the '
        "migration guide has the order of the switch.",
        id="antiphon.W006",
    )


def _only_one_process(alias: str, fact: str) -> CheckMessage:
    return Caution(
        f"{fact} With DEBUG off there are usually several processes, and in memory they do not hear each other.",
        hint=f"Set CHANNEL_LAYERS[{alias!r}] to {_SHARED_LAYERS}; or, if the site runs in one process for good, silence "
        "this with SILENCED_SYSTEM_CHECKS = ['antiphon.W001'].",
        id="antiphon.W001",
    )


def _config_problem(backend: Any, config: Any) -> str | None:
    if not isinstance(config, Mapping):
        return f"expected a dict; got {config!r:.120}"
    if isinstance(backend, type) and issubclass(backend, ChannelLayer):
        # Making one connects to nothing, and says best what is wrong.
        try:
            backend(**config)
        except (TypeError, ValueError) as exc:
            return str(exc)
        return None
    try:
        parameters = signature(backend).parameters
    except (TypeError, ValueError):  # a backend written in C says nothing about itself
        return None
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    unknown = [options.unknown_key(name, set(parameters), "option") for name in config if name not in parameters]
    return "; ".join(unknown) or None


def check_options(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Check ``ANTIPHON``: E005."""
    configured = getattr(settings, "ANTIPHON", None)
    if configured is None:
        return []
    if isinstance(configured, Mapping):
        problems = options.validate(configured)
    else:
        problems = [f"ANTIPHON: expected a dict; got {configured!r:.120}"]
    known = ", ".join(sorted(options.OPTIONS))
    return [
        Error(problem, hint=f"Options of the ANTIPHON setting: {known}.", id="antiphon.E005") for problem in problems
    ]


def check_apps(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Check what stands around the app: W002 to W005."""
    found: list[CheckMessage] = []
    application = getattr(settings, "ASGI_APPLICATION", None)
    if not isinstance(application, str) or "." not in application:
        found.append(
            Caution(
                f"ASGI_APPLICATION is not the dotted path of an application; it is {application!r}.",
                hint='Set it, such as ASGI_APPLICATION = "mysite.asgi.application": runserver and runworker serve it.',
                id="antiphon.W002",
            )
        )
    if sessions_in_database() and not apps.is_installed("django.contrib.sessions"):
        with_users = apps.is_installed("django.contrib.auth")
        if with_users:
            found.append(
                Caution(
                    "Users are installed and sessions are not, so no WebSocket can find its user.",
                    hint='Add "django.contrib.sessions" to INSTALLED_APPS and run "manage.py migrate".',
                    id="antiphon.W003",
                )
            )
    if apps.is_installed("antiphon"):
        owner = _owner_of("runserver")
        if owner == "daphne" and not framework.compat:
            found.append(
                Caution(
                    'runserver is that of "daphne", which stands before "antiphon" in INSTALLED_APPS.',
                    hint='Put "antiphon" first to serve with uvicorn; or keep daphne, and silence antiphon.W004.',
                    id="antiphon.W004",
                )
            )
        elif owner not in ("antiphon", "channels", "daphne"):
            found.append(
                Caution(
                    f"runserver is that of {owner!r}, which may not serve WebSockets.",
                    hint=f'Put "antiphon" before "{owner}" in INSTALLED_APPS.',
                    id="antiphon.W005",
                )
            )
    return found


def _owner_of(command: str) -> str:
    return str(get_commands()[command])


def check_tables(
    app_configs: Sequence[AppConfig] | None = None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Check the tables of sessions and users: W007. Only where Django checks databases (``check --database``)."""
    # "migrate" checks the database first; to tell whoever runs it to run it would be no help.
    if not databases or sys.argv[1:2] == ["migrate"]:
        return []
    table = find_missing_table()
    if table is None:
        return []
    return [
        Caution(
            f"The table {table!r} does not exist: WebSockets with a session are denied.",
            hint='Run "manage.py migrate".',
            id="antiphon.W007",
        )
    ]


def check_tickets(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Check that a one-use ticket is one in all processes: W008, for ``check --deploy``."""
    backend = settings.CACHES.get("default", {}).get("BACKEND", "")
    if backend.rpartition(".")[2] not in ("LocMemCache", "DummyCache"):
        return []
    return [
        Caution(
            "The default cache belongs to one process, so a one-use ticket (make_ticket) may be used once in each.",
            hint="Configure a cache that the processes share, or ignore this where no tickets are made.",
            id="antiphon.W008",
        )
    ]


def check_origins(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Check that the origin check is one: W009, for ``check --deploy``."""
    configured = getattr(settings, "ANTIPHON", None)
    listed = configured.get("allowed_origins") if isinstance(configured, Mapping) else None
    where = "ALLOWED_HOSTS" if listed is None else 'ANTIPHON["allowed_origins"]'
    origins = settings.ALLOWED_HOSTS if listed is None else listed
    if not isinstance(origins, (list, tuple, set)) or "*" not in origins:
        return []
    return [
        Caution(
            f'{where} has "*", so any site may open WebSockets with the cookies of your users.',
            hint='List the origins of your pages, such as ANTIPHON = {"allowed_origins": ["https://example.com"]}.',
            id="antiphon.W009",
        )
    ]
