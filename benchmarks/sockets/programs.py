"""Compiles the C programs on first use, into a folder that git ignores, and says where they are to run."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness import pick_core

__all__ = ["generator", "program"]

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / ".venvs"
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra")


def program(name: str) -> Path:
    """Return the program made of ``<name>.c``, compiled when a source, the compiler or its flags have changed.

    Raises SystemExit where there is no compiler, or no Linux: both programs wait with epoll.
    """
    if sys.platform != "linux":
        raise SystemExit("The benchmarks on real sockets need Linux: their load generator waits with epoll.")
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        raise SystemExit(
            f"The benchmarks on real sockets need a C compiler for their load generator; {compiler[0]!r} was not found. "
            "Install gcc or clang, or name one in the variable CC."
        )
    command = [*compiler, *FLAGS]
    digest = hashlib.sha256(" ".join(command).encode())
    for source in sorted([*HERE.glob("*.c"), *HERE.glob("*.h")]):
        digest.update(source.read_bytes())
    path = CACHE / f"{name}-{digest.hexdigest()[:10]}"
    if not path.exists():
        CACHE.mkdir(exist_ok=True)
        # Under a name of its own until it is whole: several processes may want it at once.
        unfinished = path.with_name(f"{path.name}.{os.getpid()}")
        made = subprocess.run(
            [*command, "-o", str(unfinished), str(HERE / f"{name}.c")], capture_output=True, text=True, check=False
        )
        if made.returncode:
            raise SystemExit(f"{name}.c does not compile with {shlex.join(compiler)}:\n{made.stderr}")
        unfinished.replace(path)
    return path


@contextlib.contextmanager
def generator(core: int | None) -> Iterator[Mapping[str, Any]]:
    """Yield what every case on real sockets gets to know: both programs, and the core of the load generator.

    That is another than ``core``, the servers', where there is another.
    """
    programs = {name: str(program(name)) for name in ("load", "limit")}
    yield {**programs, "generator_core": None if core is None else pick_core(apart=True)}
