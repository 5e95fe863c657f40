"""``install_as_channels()``: one module object under two names, in a process of its own each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from antiphon.compat.finder import ALIASES

from .conftest import Run, environment

INSTALL = "import antiphon; antiphon.install_as_channels()\n"
SETTINGS = """
from django.conf import settings
settings.configure(INSTALLED_APPS={apps!r}, SECRET_KEY="x", DATABASES={{}}, USE_TZ=True,
    CHANNEL_LAYERS={{"default": {{"BACKEND": "channels.layers.InMemoryChannelLayer"}}}})
import django; django.setup()
from django.apps import apps
"""
CONTRIB = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]


def write(folder: Path, **files: str) -> Path:
    """Write ``a__b="…"`` to ``folder/a/b.py`` with the packages on the way."""
    for name, text in files.items():
        *packages, module = name.split("__")
        package = folder
        for part in packages:
            package /= part
            package.mkdir(exist_ok=True)
            (package / "__init__.py").touch()
        (package / f"{module}.py").write_text(text)
    return folder


def test_both_names_give_the_same_module(run: Run) -> None:
    run(
        "-c",
        INSTALL
        + SETTINGS.format(apps=["channels", *CONTRIB])
        + f"""
from importlib import import_module
import sys
for name, target in {ALIASES!r}.items():
    module = import_module(name)
    assert module is import_module(target) is sys.modules[name], name
    assert module.__spec__.name == target, name
    parent, _, child = name.rpartition(".")
    assert not parent or getattr(sys.modules[parent], child) is module, name
import channels.layers, antiphon.layers
from channels.generic.websocket import WebsocketConsumer
from antiphon.generic import websocket
assert WebsocketConsumer is websocket.WebsocketConsumer
assert (channels.__version__, channels.DEFAULT_CHANNEL_LAYER) == ("4.3.2", "default")
""",
    )


def test_it_needs_no_django_and_no_settings(run: Run) -> None:
    run(
        "-c",
        "import sys; sys.modules['django'] = None\n"
        + INSTALL
        + """
import channels.layers, channels.exceptions, channels.consumer, channels.generic.websocket
from antiphon import compat
assert compat.installed()
assert channels.layers.get_channel_layer("nowhere") is None
""",
    )


def test_it_may_be_called_twice_and_stays_first(run: Run) -> None:
    run(
        "-c",
        INSTALL
        + """
import sys, channels
finder = sys.meta_path[0]
sys.meta_path.insert(0, type("Other", (), {"find_spec": staticmethod(lambda *args: None)}))
antiphon.install_as_channels()
assert sys.meta_path[0] is finder and sys.meta_path.count(finder) == 1
""",
    )


def test_a_real_channels_beside_it_is_never_imported(run: Run, real_channels: Path) -> None:
    run(
        "-c",
        INSTALL
        + """
import channels, channels.layers, importlib.metadata
assert channels.__name__ == "antiphon.compat.channels" and "antiphon" in channels.layers.__file__
assert importlib.metadata.version("channels") == "4.3.2"
""",
        path=(real_channels,),
    )


def test_a_real_channels_imported_before_is_an_error_that_says_what_to_do(run: Run, real_channels: Path) -> None:
    said = run(
        "-c",
        """
import channels.layers, antiphon
try:
    antiphon.install_as_channels()
except RuntimeError as exc:
    print(exc)
import sys
assert not any("Alias" in repr(finder) for finder in sys.meta_path) and not antiphon.framework.compat
""",
        path=(real_channels,),
    )
    assert "'channels' is imported already" in said
    assert str(real_channels) in said
    assert "__init__.py" in said


def test_a_module_that_channels_does_not_have_is_an_ordinary_import_error(run: Run) -> None:
    run(
        "-c",
        INSTALL
        + """
import importlib.util
assert importlib.util.find_spec("channels.nowhere") is None
assert importlib.util.find_spec("channels_redis_of_nobody") is None
try:
    import channels.nowhere
except ModuleNotFoundError as exc:
    assert "channels.nowhere" in str(exc)
else:
    raise SystemExit("imported")
""",
    )


@pytest.mark.parametrize("names", [["channels"], ["daphne", "channels"], ["daphne", "antiphon", "channels"]])
def test_apps_may_stay_in_any_combination(run: Run, names: list[str]) -> None:
    run(
        "-c",
        INSTALL
        + SETTINGS.format(apps=names + CONTRIB)
        + f"""
assert [apps.is_installed(name) for name in {names!r}] == [True] * {len(names)}
assert len({{config.label for config in apps.get_app_configs()}}) == {len(names) + len(CONTRIB)}
from django.core.management import call_command, get_commands
call_command("check")
commands = get_commands()
assert commands["runworker"] == ("antiphon" if "antiphon" in {names!r} else "channels"), commands
if "daphne" in {names!r}:
    assert commands["runserver"] == "daphne"
from django.core.management import load_command_class
for name in ("runworker", "runserver"):
    if commands[name] != "django.core":
        assert type(load_command_class(commands[name], name)).__module__.startswith("antiphon.")
""",
    )


def test_a_real_daphne_is_left_alone(run: Run, tmp_path: Path) -> None:
    write(tmp_path, daphne__apps="ours = False", daphne__server="")
    run(
        "-c",
        INSTALL
        + """
import daphne, daphne.apps, daphne.server
assert daphne.apps.ours is False and "compat" not in daphne.__file__
""",
        path=(tmp_path,),
    )


def test_without_channels_a_missing_daphne_is_missing(run: Run) -> None:
    run("-c", "import antiphon, importlib.util; assert importlib.util.find_spec('daphne') is None")


def test_patches_by_either_name_hold_for_both(run: Run) -> None:
    run(
        "-c",
        INSTALL
        + SETTINGS.format(apps=["channels", *CONTRIB])
        + """
from unittest import mock
import channels.db, antiphon.db
with mock.patch("channels.db.close_old_connections") as patched:
    assert antiphon.db.close_old_connections is patched
from django.utils.module_loading import import_string
assert import_string("channels.layers.InMemoryChannelLayer").__module__.startswith("antiphon.")
""",
    )


def test_a_spawned_child_has_it_through_the_project_package(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        project__work="""
def layer():
    import channels.layers
    return channels.layers.InMemoryChannelLayer.__module__
""",
        main="""
import multiprocessing
if __name__ == "__main__":
    from project.work import layer
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(layer))
""",
    )
    (folder / "project" / "__init__.py").write_text(INSTALL)
    said = subprocess.run(
        [sys.executable, "main.py"], cwd=folder, env=environment(), capture_output=True, text=True, check=True
    )
    assert said.stdout.startswith("antiphon.")
