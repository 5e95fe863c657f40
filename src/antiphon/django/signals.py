"""What Django announces and open connections must hear: log-outs, users that change, WebSockets that went astray."""

from __future__ import annotations

import logging
from typing import Any

from django.contrib.auth import get_user_model, user_logged_out
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import request_started
from django.db.models.signals import post_delete, post_save

from .revoke import close_session, close_user

__all__ = ["connect"]

logger = logging.getLogger("antiphon.server")


def connect() -> None:
    """Connect the receivers. May be called again."""
    request_started.connect(_look_for_stray_websocket, dispatch_uid="antiphon.request_started")
    try:
        user_model = get_user_model()
    except ImproperlyConfigured:  # a project without users
        return
    user_logged_out.connect(_logged_out, dispatch_uid="antiphon.user_logged_out")
    # For every model: a proxy of the user model is saved under its own name.
    post_save.connect(_saved, dispatch_uid="antiphon.post_save")
    # For the user model alone: a receiver for all models would take Django's fast path away from every delete.
    post_delete.connect(_deleted, sender=user_model, dispatch_uid="antiphon.post_delete")


def _logged_out(*, request: Any, **kwargs: Any) -> None:
    # Sent before the session is flushed, so its key is still that of the sockets.
    session = getattr(request, "session", None)
    if session is not None:
        close_session(session.session_key, "unauthenticated")


def _saved(*, instance: Any, created: bool, using: str, raw: bool = False, **kwargs: Any) -> None:
    if created or raw or not isinstance(instance, get_user_model()):
        return
    # set_password() leaves the plain password here until save() is over; an upgrade of the hash leaves None.
    password_changed = getattr(instance, "_password", None) is not None
    if password_changed or not getattr(instance, "is_active", True):
        close_user(instance, "revoked", database=using)


def _deleted(*, instance: Any, using: str, **kwargs: Any) -> None:
    close_user(instance, "revoked", database=using)


def _look_for_stray_websocket(*, environ: dict[str, Any] | None = None, **kwargs: Any) -> None:
    """Log a WebSocket that arrived as a plain HTTP request: what it needs is not a view."""
    if environ is not None:
        if environ.get("HTTP_UPGRADE", "").lower() == "websocket":
            logger.warning(
                "A WebSocket for %r reached WSGI, which cannot serve it: run the project's ASGI application "
                '(ASGI_APPLICATION) on an ASGI server; for development, put "antiphon" first in INSTALLED_APPS and use '
                '"manage.py runserver"',
                environ.get("PATH_INFO", ""),
            )
        return
    scope = kwargs.get("scope") or {}
    if any(name == b"upgrade" and value.lower() == b"websocket" for name, value in scope.get("headers") or ()):
        logger.warning(
            "A WebSocket for %r arrived as plain HTTP: the ASGI server has no WebSocket support "
            '(pip install "antiphon[server]", or "uvicorn[standard]")',
            scope.get("path", ""),
        )
