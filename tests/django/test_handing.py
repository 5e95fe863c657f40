from __future__ import annotations

import gc
import inspect
import weakref
from typing import Any

import pytest

from antiphon.auth import AuthMiddleware
from antiphon.middleware import BaseMiddleware
from antiphon.routing import ProtocolTypeRouter, URLRouter
from antiphon.security.websocket import OriginValidator
from antiphon.sessions import CookieMiddleware, InstanceSessionWrapper, SessionMiddleware, SessionMiddlewareStack
from tests.django.asgi import Recorder, play, websocket


class Sender:
    """Keeps the ``send`` it was given, and accepts."""

    def __init__(self) -> None:
        self.send: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.send = send
        await send({"type": "websocket.accept"})


async def sent_through(application: Any, sent: list[Any]) -> Any:
    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    await application(websocket(), receive, send)
    return send


@pytest.mark.parametrize(
    "middleware", [CookieMiddleware, SessionMiddleware, AuthMiddleware, OriginValidator, URLRouter, ProtocolTypeRouter]
)
def test_a_middleware_is_a_coroutine_function_to_servers(middleware: Any) -> None:
    assert inspect.iscoroutinefunction(middleware.__call__)


async def test_a_subclass_with_a_call_of_its_own_is_called() -> None:
    seen: list[str] = []

    class Own(CookieMiddleware):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
            seen.append("before")
            result = await super().__call__(dict(scope, own=1), receive, send)
            seen.append("after")
            return result

    app = Recorder()
    await play(ProtocolTypeRouter({"websocket": Own(SessionMiddleware(app))}), websocket())
    assert seen == ["before", "after"]
    assert app.scope["own"] == 1


async def test_a_class_between_auth_and_its_base_is_called() -> None:
    class Between(BaseMiddleware):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
            return await super().__call__(dict(scope, between=1), receive, send)

    class Both(AuthMiddleware, Between):
        pass

    app = Recorder()
    await play(SessionMiddlewareStack(Both(app)), websocket())
    assert app.scope["between"] == 1


async def test_the_scope_of_the_server_is_not_changed() -> None:
    scope = websocket()
    before = dict(scope)
    await play(SessionMiddlewareStack(AuthMiddleware(Recorder())), scope)
    assert scope == before


async def test_after_the_accept_the_session_steps_aside() -> None:
    app, sent = Sender(), []  # type: ignore[var-annotated]
    send = await sent_through(SessionMiddlewareStack(app), sent)
    assert app.send.after_accept is send
    assert sent == [{"type": "websocket.accept"}]


@pytest.mark.parametrize("attribute", ["save_message_types", "cookie_response_message_types"])
async def test_a_session_that_saves_with_other_messages_keeps_its_place(
    monkeypatch: pytest.MonkeyPatch, attribute: str
) -> None:
    monkeypatch.setattr(InstanceSessionWrapper, attribute, ["http.response.start", "websocket.send"])
    app = Sender()
    await sent_through(SessionMiddlewareStack(app), [])
    assert not hasattr(app.send, "after_accept")


async def test_a_send_that_was_replaced_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    async def own(self: InstanceSessionWrapper, message: Any) -> Any:
        seen.append(message["type"])
        return await self.real_send(message)

    monkeypatch.setattr(InstanceSessionWrapper, "send", own)

    app, sent = Sender(), []  # type: ignore[var-annotated]
    await sent_through(SessionMiddlewareStack(app), sent)
    assert not hasattr(app.send, "after_accept")
    await app.send({"type": "websocket.send", "text": "x"})
    assert seen == [message["type"] for message in sent] == ["websocket.accept", "websocket.send"]


async def test_no_frame_of_ours_keeps_the_scope_of_a_connection() -> None:
    class Scope(dict[str, Any]):
        pass

    kept: list[bool] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        gc.collect()
        kept.append(handed() is not None)

    class Handing:
        def __init__(self) -> None:
            self.inner = CookieMiddleware(inner)

    scope = Scope(websocket())
    handed = weakref.ref(scope)
    running = Handing().inner(scope, None, None)  # type: ignore[arg-type]
    del scope
    await running
    assert kept == [False]
