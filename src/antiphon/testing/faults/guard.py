"""The guard: one small shell beside this process that ends servers and removes folders when this process is gone.

``atexit`` does not run under SIGKILL or a crash, and ``PR_SET_PDEATHSIG`` fires when the *thread* that forked ends
(and on Linux alone). A pipe that the kernel closes with the process needs neither. Knows process groups and folders.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path

__all__: list[str] = []

# Reads "+ pid", "- pid" and "d folder"; at the end of the pipe it kills what is left, as groups.
_SHELL = """
trap '' INT TERM HUP
groups= ; folders=
while read -r what which; do
  case $what in
    +) groups="$groups $which " ;;
    -) groups=${groups%%" $which "*}${groups#*" $which "} ;;
    d) folders="$folders $which" ;;
  esac
done
for each in $groups; do kill -9 "-$each" 2>/dev/null; done
for each in $folders; do rm -rf -- "$each"; done
"""
# Socket addresses hold 104 bytes on macOS, 108 on Linux: what stands before a socket's own name must be short.
_LONGEST_PLACE = 60

_lock = threading.Lock()
_groups: set[int] = set()
_folders: set[Path] = set()
_guard: subprocess.Popen[bytes] | None = None
_pipe = -1


def watch(group: int) -> None:
    """Have the process group killed when this process ends, however it does."""
    _groups.add(group)
    _tell(f"+ {group}")


def forget(group: int) -> None:
    """Take the group off again: it has ended, and its number may become another's."""
    if group in _groups:
        _groups.discard(group)
        _tell(f"- {group}")


def folder() -> Path:
    """Make a folder that is this user's alone (0700), with a path short enough for sockets, removed at the end."""
    place: str | None = tempfile.gettempdir()
    if len(str(place)) > _LONGEST_PLACE and Path("/tmp").is_dir():  # noqa: S108 -- mkdtemp makes it ours alone
        place = "/tmp"  # noqa: S108
    made = Path(tempfile.mkdtemp(prefix="antiphon-", dir=place))
    _watch_folder(made)
    return made


def make_again(made: Path) -> None:
    """Make such a folder anew where it was removed."""
    if not made.exists():
        made.mkdir(mode=0o700)
        _watch_folder(made)


def remove(made: Path) -> None:
    """Remove such a folder now."""
    _folders.discard(made)
    shutil.rmtree(made, ignore_errors=True)


def kill_group(group: int, number: signal.Signals) -> None:
    """Send a signal to a whole group; one that has ended is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
        os.killpg(group, number)


def _watch_folder(made: Path) -> None:
    _folders.add(made)
    if " " not in str(made):  # else left to atexit: the shell's lists are divided by spaces
        _tell(f"d {made}")


def _tell(line: str) -> None:
    global _guard, _pipe
    with _lock:
        if _guard is None:
            theirs, _pipe = os.pipe()  # not inheritable: no server holds it open
            _guard = subprocess.Popen(  # noqa: S603 -- a constant of this file
                ["/bin/sh", "-c", _SHELL],
                stdin=theirs,
                stdout=subprocess.DEVNULL,  # whoever reads the tests' output sees its end
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,  # Ctrl-C is for the tests, which then end their servers in order
            )
            os.close(theirs)
        os.write(_pipe, f"{line}\n".encode())


def _forked() -> None:
    # What the parent started is the parent's, and its pipe must close when it ends.
    global _guard, _lock
    parents, _guard, _lock = _guard, None, threading.Lock()
    _groups.clear()
    _folders.clear()
    if parents is not None:
        os.close(_pipe)
        parents.returncode = 0  # nobody here waits for it


def _end() -> None:
    for group in _groups:
        kill_group(group, signal.SIGKILL)
    for made in _folders:
        shutil.rmtree(made, ignore_errors=True)
    if _guard is not None:
        os.close(_pipe)
        _guard.wait(5)


atexit.register(_end)
os.register_at_fork(after_in_child=_forked)
