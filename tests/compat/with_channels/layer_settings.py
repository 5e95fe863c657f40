"""Settings of the processes of test_with_channels.py, which says by LAYER whose layer is tried."""

import os

SECRET_KEY = "a-secret-of-these-tests-alone"
DATABASES: dict[str, object] = {}
USE_TZ = True
if os.environ["LAYER"] == "antiphon":
    INSTALLED_APPS = ["channels"]
    BACKEND = {"BACKEND": "antiphon.layers.InMemoryChannelLayer", "CONFIG": {"expiry": 0.8, "capacity": 3}}
else:
    INSTALLED_APPS = ["antiphon"]
    BACKEND = {"BACKEND": "channels.layers.InMemoryChannelLayer"}
CHANNEL_LAYERS = {"default": BACKEND}
