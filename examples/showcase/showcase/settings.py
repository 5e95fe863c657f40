"""Settings of the showcase: one SQLite file, and a channel layer that needs no server. For a demo on this machine only."""

import os
import secrets
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

# The database and the key live in one folder that can be thrown away; tests point it at a temporary one.
DATA_DIR = Path(os.environ.get("SHOWCASE_DATA", BASE_DIR / "var")).resolve()
DATA_DIR.mkdir(parents=True, exist_ok=True)


def secret_key() -> str:
    """Return the key of this copy of the demo; made once, so that sessions survive a restart."""
    path = DATA_DIR / "secret_key"
    try:
        with path.open("x") as file:
            file.write(secrets.token_urlsafe(50))
    except FileExistsError:
        pass
    return path.read_text()


SECRET_KEY = secret_key()
DEBUG = True  # serves the static files; the demo command listens on 127.0.0.1 and nowhere else
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]

INSTALLED_APPS = [
    "antiphon",  # before staticfiles: its runserver serves WebSockets too
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "stage",
    "chat",
    "notifications",
]

# What carries messages: "embedded", a Valkey that the processes of the demo start and share by themselves, and that
# writes what it holds to a file; "memory", which stays within one process; or the address of a server:
# redis://localhost:6379.
LAYER = os.environ.get("LAYER") or "embedded"
# What pages may miss and get back: the last messages of each room, and of each user's notifications, for a day. Who types
# is nothing to keep; who is in a room, the layer knows.
GROUPS = {
    "chat_*": {"history_size": 200, "history_ttl": 86400},
    "notifications_*": {"history_size": 100, "history_ttl": 86400},
    "here_*": {"presence": True, "presence_grace_s": 2},  # so long one may take to come back, unnoticed
}
# A message that was on its way when the server died is sent again for so many seconds; no member gets it twice.
SHARED = {"groups": GROUPS, "publish_retry": 2.0}
if LAYER == "embedded":
    # By its data, two copies of the demo are two projects.
    DEFAULT_LAYER = {"BACKEND": "antiphon.layers.EmbeddedChannelLayer", "CONFIG": {"project": str(DATA_DIR), **SHARED}}
elif LAYER == "memory":
    DEFAULT_LAYER = {"BACKEND": "antiphon.layers.InMemoryChannelLayer", "CONFIG": {"groups": GROUPS}}
else:
    DEFAULT_LAYER = {"BACKEND": "antiphon.layers.RedisChannelLayer", "CONFIG": {"hosts": [LAYER], **SHARED}}
CHANNEL_LAYERS = {"default": DEFAULT_LAYER}

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "stage.security.content_security_policy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "stage.sides.side_user",  # after the session's user, which it replaces inside the two windows
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
X_FRAME_OPTIONS = "SAMEORIGIN"  # the landing page shows the other pages in frames

ROOT_URLCONF = "showcase.urls"
ASGI_APPLICATION = "showcase.asgi.application"
LOGIN_URL = "/"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "stage.context.stage",
            ],
        },
    },
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA_DIR / "showcase.sqlite3",
        # Several threads write: wait for the lock when the transaction begins, and let readers pass.
        "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

USE_TZ = True
TIME_ZONE = "UTC"
STATIC_URL = "/static/"

# Antiphon is quiet until a project says where its records go: what a consumer raises, drops, refused connections.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"antiphon": {"handlers": ["console"], "level": "WARNING"}},
}
