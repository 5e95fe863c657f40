"""The project package: the one place that changes. CHANNELS=real leaves it out, to try the same code on Channels."""

import os

if os.environ.get("CHANNELS") != "real":
    import antiphon

    antiphon.install_as_channels()
