"""Tests as an application has them: communicators, and Django's client for the view."""

from channels.auth import AuthMiddlewareStack, UserLazyObject
from channels.exceptions import InvalidChannelLayerError
from channels.layers import channel_layers, get_channel_layer
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.apps import apps
from django.contrib.auth.models import User
from django.test import TestCase, TransactionTestCase, override_settings
from django.urls import path

from chat.consumers import ChatConsumer
from mysite.asgi import application
from notify.consumers import NotificationConsumer

ORIGIN = [(b"origin", b"http://localhost")]


class ChatTests(TestCase):
    async def test_members_of_a_room_read_each_other(self):
        app = URLRouter([path("ws/chat/<str:room>/", AuthMiddlewareStack(ChatConsumer.as_asgi()))])
        one, two = (WebsocketCommunicator(app, "/ws/chat/lobby/") for _ in range(2))
        other = WebsocketCommunicator(app, "/ws/chat/elsewhere/")
        for communicator in (one, two, other):
            self.assertEqual(await communicator.connect(), (True, None))
        await one.send_json_to({"message": "hello"})
        for communicator in (one, two):
            answer = await communicator.receive_json_from()
            self.assertEqual(answer, {"message": "hello", "user": "AnonymousUser"})
        self.assertTrue(await other.receive_nothing())
        for communicator in (one, two, other):
            await communicator.disconnect()
        self.assertEqual(dict(get_channel_layer().groups), {})

    async def test_the_whole_stack_refuses_another_origin(self):
        communicator = WebsocketCommunicator(application, "/ws/chat/lobby/", headers=[(b"origin", b"http://elsewhere")])
        self.assertFalse((await communicator.connect())[0])


class NotificationTests(TransactionTestCase):
    async def test_a_view_reaches_its_user(self):
        user = await User.objects.acreate(username="ann")
        await self.async_client.aforce_login(user)
        cookie = f"sessionid={self.async_client.cookies['sessionid'].value}".encode()
        communicator = WebsocketCommunicator(application, "/ws/notifications/", headers=[*ORIGIN, (b"cookie", cookie)])
        self.assertEqual(await communicator.connect(), (True, None))
        self.assertEqual(await communicator.receive_json_from(), {"hello": "ann"})
        response = await self.async_client.post(f"/notify/{user.pk}/", {"text": "dinner"})
        self.assertEqual(response.content, b"sent")
        self.assertEqual(await communicator.receive_json_from(), {"notification": "dinner"})
        await communicator.disconnect()

    async def test_strangers_are_denied(self):
        communicator = WebsocketCommunicator(application, "/ws/notifications/", headers=ORIGIN)
        self.assertFalse((await communicator.connect())[0])

    async def test_a_consumer_alone_takes_its_user_from_the_scope(self):
        user = await User.objects.acreate(username="ann")
        communicator = WebsocketCommunicator(NotificationConsumer.as_asgi(), "/")
        communicator.scope["user"] = user
        self.assertEqual(await communicator.connect(), (True, None))
        self.assertEqual(await communicator.receive_json_from(), {"hello": "ann"})
        await get_channel_layer().group_send(f"notifications_{user.pk}", {"type": "send.notification", "text": "x"})
        self.assertEqual(await communicator.receive_json_from(), {"notification": "x"})
        await communicator.disconnect()


class SettingsTests(TestCase):
    def test_channels_is_an_installed_app(self):
        self.assertTrue(apps.is_installed("channels"))
        self.assertEqual(apps.get_app_config("channels").name, "channels")

    def test_the_layer_has_its_config(self):
        self.assertEqual(get_channel_layer().capacity, 50)
        self.assertIs(channel_layers["default"], get_channel_layer())
        self.assertIsNone(get_channel_layer("nowhere"))

    @override_settings(CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}, "bad": {}})
    def test_settings_can_be_overridden(self):
        self.assertEqual(get_channel_layer().capacity, 100)
        with self.assertRaises(InvalidChannelLayerError):
            channel_layers.make_backend("bad")

    def test_a_lazy_user_says_that_it_is_not_there_yet(self):
        with self.assertRaises(ValueError):
            str(UserLazyObject())
