"""The import finder behind ``install_as_channels()``: one table of names, and the machinery that reads it.

Both names of a module give the same module object, so that classes, patches and module globals are shared.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["ALIASES", "STAND_INS", "AliasFinder"]

# Every public module of Channels 4.3.2 and of channels_redis 4.3.0, and the door that stands in for it.
ALIASES = {
    "channels": "antiphon.compat.channels",
    "channels.apps": "antiphon.compat.channels.apps",
    "channels.auth": "antiphon.auth",
    "channels.consumer": "antiphon.consumer",
    "channels.db": "antiphon.db",
    "channels.exceptions": "antiphon.exceptions",
    "channels.generic": "antiphon.generic",
    "channels.generic.http": "antiphon.generic.http",
    "channels.generic.websocket": "antiphon.generic.websocket",
    "channels.layers": "antiphon.layers",
    "channels.management": "antiphon.compat.channels.management",
    "channels.management.commands": "antiphon.compat.channels.management.commands",
    "channels.management.commands.runworker": "antiphon.compat.channels.management.commands.runworker",
    "channels.middleware": "antiphon.middleware",
    "channels.routing": "antiphon.routing",
    "channels.security": "antiphon.security",
    "channels.security.websocket": "antiphon.security.websocket",
    "channels.sessions": "antiphon.sessions",
    "channels.testing": "antiphon.compat.testing",
    "channels.testing.application": "antiphon.compat.testing",
    "channels.testing.http": "antiphon.compat.testing",
    "channels.testing.live": "antiphon.compat.testing",
    "channels.testing.websocket": "antiphon.compat.testing",
    "channels.utils": "antiphon.utils",
    "channels.worker": "antiphon.worker",
    "channels_redis": "antiphon.compat.channels_redis",
    "channels_redis.core": "antiphon.compat.channels_redis.core",
    "channels_redis.pubsub": "antiphon.compat.channels_redis.pubsub",
    "channels_redis.serializers": "antiphon.compat.channels_redis.serializers",
    "channels_redis.utils": "antiphon.compat.channels_redis.utils",
}

# Used only where the real package cannot be imported: enough of Daphne to stay in INSTALLED_APPS.
STAND_INS = {
    "daphne": "antiphon.compat.daphne",
    "daphne.apps": "antiphon.compat.daphne.apps",
    "daphne.management": "antiphon.compat.daphne.management",
    "daphne.management.commands": "antiphon.compat.daphne.management.commands",
    "daphne.management.commands.runserver": "antiphon.compat.daphne.management.commands.runserver",
}


class AliasFinder(MetaPathFinder):
    """Finds the names of the table, and leaves every other name to the finders after it."""

    def __repr__(self) -> str:
        return f"<AliasFinder {len(ALIASES)} names>"

    def covers(self, name: str) -> bool:
        """Say whether ``name`` is Channels, channels_redis or one of their modules, whatever module bears it."""
        return name.partition(".")[0] in ("channels", "channels_redis")

    def owns(self, name: str) -> bool:
        """Say whether the module imported as ``name`` is the one of the table."""
        target = ALIASES.get(name)
        return target is not None and sys.modules[name] is sys.modules.get(target)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec that loads the door of ``fullname``; None for a name that is not in the table."""
        alias = ALIASES.get(fullname)
        if alias is None and fullname in STAND_INS and not self._found_elsewhere(fullname, path):
            alias = STAND_INS[fullname]
        return None if alias is None else ModuleSpec(fullname, _AliasLoader(alias), origin=alias)

    def _found_elsewhere(self, fullname: str, path: Sequence[str] | None) -> bool:
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        return any(finder.find_spec(fullname, path) is not None for finder in others)


class _AliasLoader(Loader):
    def __init__(self, target: str) -> None:
        self.target = target

    def exec_module(self, module: ModuleType) -> None:
        """Put the door in the place of the fresh ``module``; the import system returns what it then finds there.

        ``create_module`` returning the door would not do: the import system writes the alias's spec into it.
        """
        door = import_module(self.target)
        if not hasattr(door, "__path__") and any(name.startswith(f"{module.__name__}.") for name in ALIASES):
            door.__path__ = []  # one module stands for a whole package: the import system asks the parent for this
        sys.modules[module.__name__] = door
