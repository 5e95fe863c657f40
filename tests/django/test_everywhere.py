"""What one process decides about users, and sockets in another: over a real server, with the database of both."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.backends.db import SessionStore
from django.db import connection

import antiphon
from antiphon.generic.websocket import AsyncJsonWebsocketConsumer
from antiphon.layers import RedisChannelLayer, channel_layers
from antiphon.subscriptions import SubscriptionConsumer
from antiphon.testing.faults import ValkeyServer
from antiphon.types import Message
from tests.consumers.client import Client, members, until
from tests.subscriptions.speaking import speaker

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import sys
import django
from django.conf import settings

settings.CHANNEL_LAYERS = {"default": {
    "BACKEND": "antiphon.layers.RedisChannelLayer", "CONFIG": {"hosts": [sys.argv[1]], "prefix": sys.argv[2]}}}
django.setup()

from django.contrib.auth.models import User
from django.test import Client
from antiphon import disconnect_user, unsubscribe_user
from antiphon.auth import revoke_user

users = {user.username: user for user in User.objects.all()}
browser = Client()
browser.cookies["sessionid"] = sys.argv[3]
assert browser.get("/logout/").status_code == 200
users["password"].set_password("another")
users["password"].save()
users["inactive"].is_active = False
users["inactive"].save()
users["deleted"].delete()
revoke_user(users["revoked"])
assert disconnect_user(users["restarted"], reconnect=True) == 1
users["permission"].user_permissions.clear()
assert unsubscribe_user(users["unsubscribed"], "room") == 1
"""

CLOSED = {
    "session": 4401, "password": 4403, "inactive": 4403, "deleted": 4403, "revoked": 4403, "restarted": 1012,
}  # fmt: skip


class Plain(AsyncJsonWebsocketConsumer):
    groups = ("room",)

    async def antiphon_unsubscribe(self, message: Message) -> None:
        await self.send_json(message)


class Restricted(SubscriptionConsumer):
    async def authorize_subscribe(self, group: str) -> bool:
        allowed: bool = await sync_to_async(self.scope["user"].has_perm)("auth.view_user")
        return allowed


@pytest.fixture
async def layer(valkey: ValkeyServer, fresh_prefix: str) -> AsyncIterator[RedisChannelLayer]:
    layer = RedisChannelLayer(hosts=[valkey.url], prefix=fresh_prefix)
    before = channel_layers.set("default", layer)
    yield layer
    await layer.close()
    if before is None:
        channel_layers.backends.pop("default")
    else:
        channel_layers.set("default", before)


async def run(*arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, *arguments,
        env=os.environ | {
            "PYTHONPATH": os.pathsep.join((str(Path(antiphon.__file__).parents[1]), str(ROOT))),
            "DJANGO_SETTINGS_MODULE": "tests.project.settings",
            "TESTS_DATABASE": str(connection.settings_dict["NAME"]),
        },
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        _, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()


def logged_in(user: User) -> SessionStore:
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return session


def people() -> dict[str, User]:
    names = [*CLOSED, "permission", "unsubscribed", "bystander"]
    users = {name: User.objects.create_user(name, password="x") for name in names}
    users["permission"].user_permissions.add(Permission.objects.get(codename="view_user"))
    return users


async def test_the_sockets_of_other_processes_hear_of_it(
    layer: RedisChannelLayer, valkey: ValkeyServer, fresh_prefix: str
) -> None:
    users = await sync_to_async(people)()
    session = await sync_to_async(logged_in)(users["session"])
    async with AsyncExitStack() as stack:
        sockets: dict[str, Any] = {}
        for name in (*CLOSED, "unsubscribed", "bystander"):
            scope = {"user": users[name]} | ({"session": session} if name == "session" else {})
            sockets[name] = await stack.enter_async_context(Client(Plain.as_asgi(), scope))
            await sockets[name].connect()
        subscriber = await stack.enter_async_context(speaker(Restricted, user=users["permission"]))
        await subscriber.begin()
        assert "code" not in await subscriber.do("subscribe", channel="secrets")

        await run(valkey.url, fresh_prefix, str(session.session_key))

        assert {name: (await sockets[name].closed())[0] for name in CLOSED} == CLOSED
        said = {"type": "antiphon.unsubscribe", "group": "room", "user": str(users["unsubscribed"].pk)}
        assert await sockets["unsubscribed"].next_json() == said
        channel, why = await subscriber.push("unsubscribe")
        assert (channel, why["code"]) == ("secrets", 2003)
        await until(lambda: members("room") == 1 and members("secrets") == 0)  # the bystander is there
