"""What Django announces and open connections must hear: log-outs, users that change, WebSockets that went astray."""

from __future__ import annotations

import logging
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model, user_logged_out
from django.contrib.auth.hashers import is_password_usable
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import request_started
from django.db.models.signals import m2m_changed, post_delete, post_init, post_save

from .framework import password_of
from .revoke import close_session, close_user, recheck_users

__all__ = ["connect"]

logger = logging.getLogger("antiphon.server")

# Where a user keeps the password that it was loaded with.
_LOADED = "_antiphon_password"
# Of more users than these at once, everybody is checked.
_FEW = 100


def connect() -> None:
    """Connect the receivers. May be called again."""
    request_started.connect(_look_for_stray_websocket, dispatch_uid="antiphon.request_started")
    try:
        user_model = get_user_model()
    except ImproperlyConfigured:  # a project without users
        return
    user_logged_out.connect(_logged_out, dispatch_uid="antiphon.user_logged_out")
    # A proxy of the user model is loaded, saved and deleted under its own name. Not for all models, though: a receiver
    # would slow each of their instances, and take Django's fast path away from every delete.
    for model in apps.get_models(include_auto_created=True):
        if issubclass(model, user_model):
            post_init.connect(_loaded, sender=model, dispatch_uid="antiphon.post_init")
            post_save.connect(_saved, sender=model, dispatch_uid="antiphon.post_save")
            post_delete.connect(_deleted, sender=model, dispatch_uid="antiphon.post_delete")

    for field in user_model._meta.many_to_many:
        if field.name in ("groups", "user_permissions"):
            m2m_changed.connect(
                _rights_changed, sender=field.remote_field.through, dispatch_uid=f"antiphon.{field.name}"
            )
    if apps.is_installed("django.contrib.auth"):
        group = apps.get_model("auth", "Group")
        m2m_changed.connect(_group_changed, sender=group.permissions.through, dispatch_uid="antiphon.group_permissions")


def _rights_changed(
    *, instance: Any, action: str, reverse: bool, pk_set: set[Any] | None, using: str, **kwargs: Any
) -> None:
    """Have those whose groups or permissions have changed be checked again."""
    if action not in ("post_add", "post_remove", "post_clear"):
        return
    if not reverse:
        recheck_users([instance], database=using)
    else:  # a group was given users; one that was cleared of them says nothing of who they were
        recheck_users(list(pk_set) if pk_set is not None and len(pk_set) <= _FEW else None, database=using)


def _group_changed(*, action: str, using: str, **kwargs: Any) -> None:
    """Have everybody be checked again: what a group may has changed."""
    if action in ("post_add", "post_remove", "post_clear"):
        recheck_users(None, database=using)


def _logged_out(*, request: Any, **kwargs: Any) -> None:
    # Sent before the session is flushed, so its key is still that of the sockets.
    session = getattr(request, "session", None)
    if session is not None:
        close_session(session.session_key, "unauthenticated")


def _loaded(*, instance: Any, **kwargs: Any) -> None:
    setattr(instance, _LOADED, password_of(instance))


def _saved(*, instance: Any, created: bool, using: str, raw: bool = False, **kwargs: Any) -> None:
    before, now = getattr(instance, _LOADED, None), password_of(instance)
    setattr(instance, _LOADED, now)
    if created or raw:
        return
    # set_password() leaves the plain password here until save() is over; an upgrade of the hash leaves None.
    password_changed = getattr(instance, "_password", None) is not None
    # set_unusable_password() leaves nothing: the user may no longer come in this way.
    disabled = before is not None and is_password_usable(before) and not is_password_usable(now)
    if password_changed or disabled or not getattr(instance, "is_active", True):
        close_user(instance, "revoked", database=using)


def _deleted(*, instance: Any, using: str, **kwargs: Any) -> None:
    close_user(instance, "revoked", database=using)


def _look_for_stray_websocket(*, environ: dict[str, Any] | None = None, **kwargs: Any) -> None:
    """Log a WebSocket that arrived as a plain HTTP request: what it needs is not a view."""
    if environ is not None:
        if environ.get("HTTP_UPGRADE", "").lower() == "websocket":
            logger.warning(
                "A WebSocket for %.200r reached WSGI, which cannot serve it: run the project's ASGI application "
                '(ASGI_APPLICATION) on an ASGI server; for development, put "antiphon" first in INSTALLED_APPS and use '
                '"manage.py runserver"',
                environ.get("PATH_INFO", ""),
            )
        return
    scope = kwargs.get("scope") or {}
    if any(name == b"upgrade" and value.lower() == b"websocket" for name, value in scope.get("headers") or ()):
        logger.warning(
            "A WebSocket for %.200r arrived as plain HTTP: the ASGI server has no WebSocket support "
            '(pip install "antiphon[server]", or "uvicorn[standard]")',
            scope.get("path", ""),
        )
