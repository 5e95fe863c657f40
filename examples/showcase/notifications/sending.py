"""Three ways to send a notification, all of them synchronous code. None of them knows a connection."""

import threading
import time

from antiphon import group_send
from django.db import connection, transaction

from notifications.models import Notification

PAUSE_S = 1.0  # how long the thread keeps its transaction open, so that you see the message wait for it


class Change(Exception):
    """What makes the thread roll its transaction back: it changed its mind."""


def notify(sender, recipient, text, source):
    """Store a notification and send it to its user; the message leaves when the row is committed, not before."""
    with transaction.atomic():
        stored = Notification.objects.create(sender=sender, recipient=recipient, text=text, source=source)
        group_send(
            f"notifications_{recipient.pk}",
            {
                "type": "notification",
                "id": stored.pk,
                "sender": sender.username,
                "text": text,
                "source": source,
                "at": stored.created_at.isoformat(),
            },
        )


def notify_from_thread(sender, recipient, text, *, commit):
    """Do the same from a thread, within a longer transaction which then commits or rolls back."""

    def work():
        try:
            with transaction.atomic():
                notify(sender, recipient, text, "thread")
                time.sleep(PAUSE_S)
                if not commit:
                    raise Change
            outcome = "Committed: the row is stored and the message is on its way."
        except Change:
            outcome = "Rolled back: no row, and no message."
        finally:
            connection.close()
        group_send(f"notifications_{sender.pk}", {"type": "report", "text": outcome})

    threading.Thread(target=work, name="notify", daemon=True).start()
