"""Which project a process belongs to, and the private folders of its user and project. Knows no engine.

Processes that agree on the name find each other; a folder that is not ours alone is refused, never repaired.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from pathlib import Path

__all__ = ["private_folder", "project_key", "project_name", "runtime_home", "state_home"]


def project_name() -> str:
    """Return what tells this project from others: the path of its settings, else the current directory."""
    # Two checkouts are two projects; a server and a shell of one share its settings file, wherever they were started.
    settings = sys.modules.get(os.environ.get("DJANGO_SETTINGS_MODULE", ""))
    return getattr(settings, "__file__", None) or str(Path.cwd())


def project_key(*parts: str) -> str:
    """Return 16 hexadecimal digits that stand for ``parts``: short enough for the path of a socket."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def runtime_home() -> Path:
    """Return the user's folder for sockets and locks; not made yet.

    Not XDG_RUNTIME_DIR: a service and cron have none, and it vanishes when the user logs out; processes of one
    project would look for each other in different places.
    """
    if sys.platform == "win32":
        raise OSError("no file locks here")
    return Path(tempfile.gettempdir()) / f"antiphon-{os.getuid()}"


def state_home() -> Path | None:
    """Return the user's folder for data that outlives a reboot, not made yet; None where the user has no home."""
    named = os.environ.get("XDG_STATE_HOME", "")
    try:
        base = Path(named) if named.startswith("/") else Path.home() / ".local" / "state"
    except RuntimeError:  # no home at all
        return None
    nearest = next(folder for folder in (base, *base.parents) if folder.exists())
    return base / "antiphon" if os.access(nearest, os.W_OK | os.X_OK) else None


def private_folder(folder: Path, *, named: bool = False) -> Path:
    """Make ``folder`` with mode 0700 where it is missing, and return it; ``named``: a user named it.

    Raises OSError when it is a link, not a directory, somebody else's, or open to others.
    """
    if sys.platform == "win32":
        raise OSError("no private folders here")
    if named:
        folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()  # before anything is made inside: it may be somebody's link
    if not stat.S_ISDIR(state.st_mode):
        raise OSError(f"{folder} is not a directory")
    if state.st_uid != os.getuid():
        raise OSError(f"{folder} belongs to somebody else (user {state.st_uid}, we are {os.getuid()})")
    # Where others could only look, nothing in it can be theirs; but what a user named is not ours to change.
    if state.st_mode & (0o077 if named else 0o022):
        raise OSError(f"{folder} is open to others (mode {stat.S_IMODE(state.st_mode):o}): chmod 700 {folder}")
    if state.st_mode & 0o077:
        folder.chmod(0o700)
    return folder
