"""Rights that change while a connection is open: what it may is asked again, and what it may not any more ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group, Permission, User

from antiphon import disconnect_user, recheck_user, unsubscribe_user
from antiphon.auth import connection_token
from antiphon.generic.websocket import AsyncJsonWebsocketConsumer
from antiphon.layers import InMemoryChannelLayer, channel_layers
from antiphon.subscriptions import SubscriptionConsumer
from antiphon.types import Message
from tests.consumers.client import Client, members, until
from tests.subscriptions.speaking import speaker

pytestmark = pytest.mark.django_db(transaction=True)


class Restricted(SubscriptionConsumer):
    async def authorize_subscribe(self, group: str) -> bool:
        allowed: bool = await sync_to_async(self.scope["user"].has_perm)("auth.view_user")
        return allowed or group == "open"


class Plain(AsyncJsonWebsocketConsumer):
    groups = ("room", "other")

    async def antiphon_unsubscribe(self, message: Message) -> None:
        await self.send_json(message)


@pytest.fixture
def layer() -> Iterator[InMemoryChannelLayer]:
    layer = InMemoryChannelLayer()
    before = channel_layers.set("default", layer)
    yield layer
    if before is None:
        channel_layers.backends.pop("default")
    else:
        channel_layers.set("default", before)


@pytest.fixture
def ada() -> User:
    user = User.objects.create_user("ada", password="x")
    user.groups.add(Group.objects.create(name="readers"))
    right = Permission.objects.get(codename="view_user")
    user.groups.get().permissions.add(right)
    return User.objects.get(pk=user.pk)


def take_from_group(user: User) -> None:
    user.groups.clear()


def take_from_groups_side(user: User) -> None:
    Group.objects.get().user_set.remove(user)


def take_right_of_group(user: User) -> None:
    Group.objects.get().permissions.clear()


def take_in_bulk(user: User) -> None:
    User.groups.through.objects.all().delete()
    recheck_user(user)


@pytest.mark.parametrize("take", [take_from_group, take_from_groups_side, take_right_of_group, take_in_bulk])
async def test_a_right_that_is_lost_ends_the_subscriptions_that_needed_it(
    layer: InMemoryChannelLayer, ada: User, take: Any
) -> None:
    async with speaker(Restricted, user=ada) as one:
        await one.begin()
        for channel in ("room", "open"):
            assert "code" not in await one.do("subscribe", channel=channel)
        await sync_to_async(take)(ada)
        await until(lambda: members("room") == 0)
        assert members("open") == 1


async def test_a_user_who_was_switched_off_in_bulk_is_found_at_the_next_look(
    layer: InMemoryChannelLayer, ada: User
) -> None:
    async with Client(Plain.as_asgi(), {"user": ada}) as one:
        await one.connect()
        await sync_to_async(User.objects.update)(is_active=False)
        await layer.recheck_user(ada)
        assert await one.closed() == (4403, "revoked")


def switch_off(ada: User) -> None:
    User.objects.update(is_active=False)


def take_right(ada: User) -> None:
    User.groups.through.objects.all().delete()


def take_office(ada: User) -> None:
    User.objects.update(is_staff=False)


@pytest.mark.parametrize(("change", "ended"), [(switch_off, 3503), (take_right, 2003), (take_office, 2003)])
async def test_what_was_changed_in_bulk_is_found_at_the_interval(
    layer: InMemoryChannelLayer, ada: User, change: Any, ended: int
) -> None:
    class Staff(Restricted):
        reauth_interval_s = 0.05

        async def authorize_subscribe(self, group: str) -> bool:
            return self.scope["user"].is_staff and await super().authorize_subscribe(group)

    await User.objects.aupdate(is_staff=True)
    async with speaker(Staff, user=await User.objects.aget()) as one:
        await one.begin()
        assert "code" not in await one.do("subscribe", channel="room")
        await sync_to_async(change)(ada)
        if ended == 2003:
            assert (await one.push("unsubscribe"))[1]["code"] == ended
        else:
            assert (await one.closed())[0] == ended
        await until(lambda: members("room") == 0)


async def test_who_is_closed_while_the_token_is_read_is_closed_all_the_same(
    layer: InMemoryChannelLayer, ada: User
) -> None:
    class Late(SubscriptionConsumer):
        async def authenticate(self, token: str) -> Any:
            claims = await super().authenticate(token)
            await layer.close_user(ada)  # nobody is known to be hers yet
            return claims

    async with speaker(Late) as one:
        await one.begin(token=await sync_to_async(connection_token)(ada))
        assert (await one.closed())[0] == 3503


async def test_a_user_is_taken_out_of_one_group_and_stays_connected(layer: InMemoryChannelLayer, ada: User) -> None:
    async with Client(Plain.as_asgi(), {"user": ada}) as one, Client(Plain.as_asgi()) as other:
        await one.connect()
        await other.connect()
        assert await sync_to_async(unsubscribe_user)(ada, "room") == 1
        assert await one.next_json() == {"type": "antiphon.unsubscribe", "group": "room", "user": str(ada.pk)}
        assert (members("room"), members("other")) == (1, 2)
        assert await layer.unsubscribe_user(ada, "room") == 0


async def test_a_client_is_told_that_its_subscription_was_ended(layer: InMemoryChannelLayer, ada: User) -> None:
    async with speaker(Restricted, user=ada) as one:
        await one.begin()
        await one.do("subscribe", channel="room")
        await layer.unsubscribe_user(ada, "room")
        channel, said = await one.push("unsubscribe")
        assert (channel, said["code"]) == ("room", 2000)
        await until(lambda: members("room") == 0)
        assert "code" not in await one.do("subscribe", channel="room")  # it may come back


@pytest.mark.parametrize(("reconnect", "code"), [(False, 4403), (True, 1012)])
async def test_a_user_is_disconnected_for_good_or_to_come_back(
    layer: InMemoryChannelLayer, ada: User, reconnect: bool, code: int
) -> None:
    async with Client(Plain.as_asgi(), {"user": ada}) as one:
        await one.connect()
        assert await sync_to_async(disconnect_user)(ada, reconnect=reconnect) == 1
        assert (await one.closed())[0] == code
