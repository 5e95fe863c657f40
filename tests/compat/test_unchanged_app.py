"""Application code written for Channels runs as it is: on us, and (so that we do not fool ourselves) on Channels too.

The code is in ``unchanged/``; its project package's ``__init__.py`` is the one place that calls us.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from .conftest import UNCHANGED, Run

VARIANTS = ("antiphon", "antiphon beside channels", "channels")


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Return path and variables of a process: ours, ours with the real package installed, the real one alone."""
    path = (UNCHANGED,) if request.param == "antiphon" else (UNCHANGED, request.getfixturevalue("real_channels"))
    return {
        "path": path,
        "CHANNELS": "real" if request.param == "channels" else "ours",
        "DATABASE": str(tmp_path / "db.sqlite3"),
    }


def manage(run: Run, variant: dict[str, Any], *args: str) -> str:
    return run(str(UNCHANGED / "manage.py"), *args, **variant)


# Not on the real Channels: its channels.testing needs Daphne, which the lock leaves out.
@pytest.mark.parametrize("variant", VARIANTS[:2], indirect=True)
def test_its_own_tests_pass(run: Run, variant: dict[str, Any]) -> None:
    assert "Ran 9 tests" in manage(run, variant, "test", "notify", "--noinput")


def test_its_commands_are_found(run: Run, variant: dict[str, Any]) -> None:
    look = (
        "import os, django; os.environ['DJANGO_SETTINGS_MODULE'] = 'mysite.settings'; django.setup()\n"
        "from django.core.management import call_command, get_commands, load_command_class\n"
        "call_command('check', fail_level='WARNING')\n"
        "for name in ('runworker', 'runserver'):\n"
        "    load_command_class(get_commands()[name], name).create_parser('manage.py', name).print_help()\n"
    )
    said = run("-c", look, **variant)
    assert "--layer" in said
    assert "addrport" in said


async def test_two_users_chat_and_a_view_notifies_over_real_sockets(
    run: Run, serve: Callable[..., str], variant: dict[str, Any]
) -> None:
    manage(run, variant, "migrate", "-v0")
    address = serve("mysite.asgi:application", **variant)
    async with httpx.AsyncClient(base_url=f"http://{address}") as http:
        user = (await http.get("/enter/ann/")).text
        cookie = {"Cookie": f"sessionid={http.cookies['sessionid']}"}

        def socket(path: str, **headers: str) -> connect:
            return connect(f"ws://{address}{path}", origin=f"http://{address}", additional_headers=headers)  # type: ignore[arg-type]

        async def said(connection: ClientConnection) -> Any:
            return json.loads(await connection.recv())

        async with (
            socket("/ws/chat/lobby/", **cookie) as ann,
            socket("/ws/chat/lobby/") as stranger,
            socket("/ws/notifications/", **cookie) as bell,
        ):
            await ann.send(json.dumps({"message": "hello"}))
            assert await said(ann) == await said(stranger) == {"message": "hello", "user": "ann"}
            await stranger.send(json.dumps({"message": "hi"}))
            assert await said(ann) == {"message": "hi", "user": "AnonymousUser"}

            assert await said(bell) == {"hello": "ann"}
            for text in ("dinner", "now"):
                answer = await http.post(f"/notify/{user}/", data={"text": text})
                assert answer.text == "sent"
                assert await said(bell) == {"notification": text}
        with pytest.raises(Exception, match="403"):
            async with socket("/ws/notifications/"):
                pass  # pragma: no cover
