"""The two users of the demo."""

from django.contrib.auth import get_user_model

NAMES = {"ada": "Ada", "grace": "Grace"}


def seed() -> None:
    """Create Ada and Grace where they are missing; safe to call again."""
    for username, first_name in NAMES.items():
        user, created = get_user_model().objects.get_or_create(username=username, defaults={"first_name": first_name})
        if created:
            user.set_unusable_password()
            user.save(update_fields=["password"])
