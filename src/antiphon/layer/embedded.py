"""``EmbeddedChannelLayer``: a Redis layer whose server comes with it. Where that runs is ``engines/redis/embedded.py``'s."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..exceptions import MissingExtra, OptionError
from ..options import unknown_key
from .redis import OWN_OPTIONS, SHARED_OPTIONS, RedisChannelLayer

if TYPE_CHECKING:
    from ..engines.redis.bus import RedisBus

__all__ = ["EmbeddedChannelLayer"]


class EmbeddedChannelLayer(RedisChannelLayer):
    """A channel layer over a Valkey that its processes start, share and end by themselves, on one machine.

    All processes of one user and project use one server over a Unix socket; there is no port. It is started by the
    first that needs it, started again when it dies, and ends some seconds after the last process that used it.
    ``persist``: keep what it holds in an append-only file in the user's state folder, written every second.
    ``project``: what the processes agree on; None: the path of Django's settings, else the current directory.
    ``directory``: a folder of mode 0700 for all of its files, for processes with different temporary directories.
    The other options as in :class:`~antiphon.layers.RedisChannelLayer`, without ``hosts`` and ``cluster``.
    Raises MissingExtra where there is no such server for the platform; the error says what to use there.
    """

    def __init__(
        self,
        *,
        persist: bool = True,
        directory: str | os.PathLike[str] | None = None,
        project: str | None = None,
        **kwargs: Any,
    ) -> None:
        for name in kwargs.keys() & {"hosts", "cluster"}:
            raise OptionError(
                f"{name}: EmbeddedChannelLayer brings its server along; with others use RedisChannelLayer"
            )
        for name in kwargs.keys() - _KNOWN:
            raise OptionError(unknown_key(name, _KNOWN, f"option of {type(self).__name__}"))
        if not isinstance(persist, bool):
            raise OptionError(f"persist: expected True or False; got {persist!r}")
        if directory is not None and not isinstance(directory, (str, os.PathLike)):
            raise OptionError(f"directory: expected a path or None; got {directory!r}")
        if project is not None and not (isinstance(project, str) and project):
            raise OptionError(f"project: expected a name or None; got {project!r}")
        self._where = (project, persist, directory)
        super().__init__(**kwargs)

    def _make_bus(self, hosts: Any, **options: Any) -> RedisBus:
        try:
            from ..engines.redis.bus import RedisBus
            from ..engines.redis.embedded import EmbeddedValkey
        except ModuleNotFoundError as exc:
            raise MissingExtra.of(exc.name or "redis", "embedded", type(self).__name__) from exc
        project, persist, directory = self._where
        self.server = EmbeddedValkey(project, persist=persist, directory=directory)
        return RedisBus((self.server,), **options)


_KNOWN = (SHARED_OPTIONS | OWN_OPTIONS | {"persist", "directory", "project"}) - {"hosts", "cluster"}
