"""The notifications a user has been sent, so that a page loaded later shows them too."""

from django.conf import settings
from django.db import models


class Notification(models.Model):
    """One notification; ``source`` says which kind of code sent it."""

    recipient = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="notifications")
    sender = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    text = models.CharField(max_length=200)
    source = models.CharField(max_length=20)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-pk"]

    def __str__(self):
        return f"{self.sender} to {self.recipient}: {self.text}"
