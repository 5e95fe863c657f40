"""Database work from asynchronous code: the public door of :mod:`antiphon.django.database`.

``close_old_connections`` stands here to be patched: it is looked up in this module at each call.
"""

from __future__ import annotations

from django.db import close_old_connections

from .django.database import DatabaseSyncToAsync, aclose_old_connections, database_sync_to_async

__all__ = ["DatabaseSyncToAsync", "aclose_old_connections", "close_old_connections", "database_sync_to_async"]
