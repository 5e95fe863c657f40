"""The pytest plug-in in a pytest of its own: without pytest-asyncio, without Django, and inside a transaction."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

WITHOUT_DJANGO = """
import sys
import antiphon

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"django", "uvicorn", "pytest_asyncio"}:
            raise ModuleNotFoundError("blocked: " + name)

sys.meta_path.insert(0, Blocked())

def test_a_layer_of_its_own(channel_layer):
    assert antiphon.get_channel_layer() is channel_layer
    assert channel_layer.stats()["sent"] == 0
    antiphon.group_send("room", {"type": "x"})

def test_and_another(channel_layer):
    assert channel_layer.stats()["sent"] == 0

def test_captured(group_messages, channel_layer):
    antiphon.group_send("room", {"type": "x"})
    assert group_messages.to("room") == [{"type": "x"}]
    assert group_messages.commit() == 0
"""

WITH_DJANGO = """
import pytest
import antiphon
from asgiref.sync import async_to_sync

@pytest.mark.django_db
def test_waits_and_is_committed(channel_layer, group_messages):
    channel = async_to_sync(channel_layer.new_channel)()
    async_to_sync(channel_layer.group_add)("room", channel)
    antiphon.group_send("room", {"type": "x"})
    assert group_messages.waiting
    group_messages.commit()
    assert not group_messages.waiting
    assert async_to_sync(channel_layer.receive)(channel) == {"type": "x"}

@pytest.mark.django_db(transaction=True)
def test_does_not_wait(channel_layer, group_messages):
    antiphon.group_send("room", {"type": "x"})
    assert not group_messages.waiting
    assert group_messages.to("room") == [{"type": "x"}]

async def test_on_a_loop(channel_layer, group_messages):
    channel = await channel_layer.new_channel()
    await channel_layer.group_add("room", channel)
    await channel_layer.group_send("room", {"type": "x"})
    assert await channel_layer.receive(channel) == {"type": "x"}
    assert group_messages.to("room") == [{"type": "x"}]

from django.contrib.auth import get_user_model
from antiphon.generic.websocket import WebsocketConsumer
from antiphon.testing import WebsocketCommunicator

class Names(WebsocketConsumer):
    groups = ["names"]

    def receive(self, text_data):
        get_user_model().objects.create(username=text_data)
        antiphon.group_send("names", {"type": "names.changed"})
        self.names_changed()

    def names_changed(self, event=None):
        self.send(",".join(get_user_model().objects.order_by("username").values_list("username", flat=True)))

@pytest.fixture
def ada(db):
    get_user_model().objects.create(username="ada")

@pytest.mark.parametrize("again", [1, 2])
async def test_threads_are_inside_the_transaction(async_db, ada, channel_layer, group_messages, again):
    async with WebsocketCommunicator(Names.as_asgi(), "/") as client:
        await client.send_to("bob")
        assert await client.receive_from() == "ada,bob"
        assert await client.receive_nothing(0.02)
        await group_messages.acommit()
        assert await client.receive_from() == "ada,bob"
    assert await get_user_model().objects.acount() == 2

@pytest.mark.django_db
def test_and_are_rolled_back_with_it():
    assert get_user_model().objects.count() == 0

def test_needs_no_database(group_messages):
    assert list(group_messages) == []
"""


def run(folder: Path, tests: str, *options: str, **environment: str) -> str:
    folder.joinpath("test_it.py").write_text(textwrap.dedent(tests))
    folder.joinpath("pytest.ini").write_text(
        "[pytest]\nasyncio_default_fixture_loop_scope = function\n" if options else "[pytest]\n"
    )
    # Plug-ins by name: it must not matter what else is installed here.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-W",
        "error",
        "-p",
        "no:cacheprovider",
        "-p",
        "antiphon.testing.plugin",
    ]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DJANGO", "PYTEST"))}
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, *options],
        cwd=folder,
        env={**kept, "PYTHONPATH": paths, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    return done.stdout + done.stderr


def test_works_without_django_and_without_pytest_asyncio(tmp_path: Path) -> None:
    assert "3 passed" in run(tmp_path, WITHOUT_DJANGO)


def test_works_inside_a_transaction_and_on_a_loop(tmp_path: Path) -> None:
    options = ("-p", "pytest_django.plugin", "-p", "pytest_asyncio.plugin", "--asyncio-mode=auto")
    output = run(tmp_path, WITH_DJANGO, *options, DJANGO_SETTINGS_MODULE="tests.project.settings")
    assert "7 passed" in output, output


def test_the_fixtures_are_documented(pytestconfig: pytest.Config) -> None:
    from antiphon.testing import plugin

    for name in plugin.__all__:
        assert getattr(plugin, name).__doc__
