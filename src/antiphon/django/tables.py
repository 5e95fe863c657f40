"""Which of the tables that a connection needs is missing: the question behind "run migrate". Knows no consumer."""

from __future__ import annotations

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections, router
from django.db.models import Model

from .database import database_sync_to_async

__all__ = ["find_missing_table", "missing_table", "sessions_in_database"]


def sessions_in_database() -> bool:
    """Say whether the session engine keeps its data in ``django_session``."""
    return settings.SESSION_ENGINE.rpartition(".")[2] in ("db", "cached_db")


def find_missing_table() -> str | None:
    """Return the name of a table for sessions or users that the database does not have, else None. Queries."""
    models: list[type[Model]] = []
    if sessions_in_database() and apps.is_installed("django.contrib.sessions"):
        models.append(apps.get_model("sessions", "Session"))
    if apps.is_installed("django.contrib.auth"):
        models.append(get_user_model())
    for model in models:
        try:
            connection = connections[router.db_for_read(model) or DEFAULT_DB_ALIAS]
            if model._meta.db_table not in connection.introspection.table_names():
                return model._meta.db_table
        except DatabaseError:  # the database does not answer at all: a trouble of another kind
            return None
    return None


missing_table = database_sync_to_async(find_missing_table)
