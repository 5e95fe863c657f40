"""The official Python client: orders come in lines, answers and events go out in lines, named as in ``driving.mjs``."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Any

from centrifuge import (  # type: ignore[import-untyped]  # it has none
    CentrifugeError,
    Client,
    ClientEventHandler,
    DeltaType,
    StreamPosition,
    SubscriptionEventHandler,
    UnauthorizedError,
)
from centrifuge.exceptions import ReplyError  # type: ignore[import-untyped]

NAMES = {
    "presenceStats": "presence_stats", "minReconnectDelay": "min_reconnect_delay", "stream_position": "streamPosition",
    "maxReconnectDelay": "max_reconnect_delay", "minResubscribeDelay": "min_resubscribe_delay",
    "maxResubscribeDelay": "max_resubscribe_delay", "joinLeave": "join_leave", "conn_info": "connInfo",
    "was_recovering": "wasRecovering", "num_clients": "numClients", "num_users": "numUsers",
    "maxServerPingDelay": "max_server_ping_delay", "setToken": "set_token",
}  # fmt: skip
# The JavaScript client's delays are in milliseconds.
DELAYS = {"minReconnectDelay", "maxReconnectDelay", "minResubscribeDelay", "maxResubscribeDelay", "maxServerPingDelay"}


def say(line: Any) -> None:
    """Tell the test."""
    print(json.dumps(line), flush=True)


def plain(value: Any) -> Any:
    """Return what the client gives as what the JavaScript client would."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {NAMES.get(each.name, each.name): plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, Exception):
        return {"code": getattr(value, "code", None), "message": str(value)}
    return value


def options_of(given: dict[str, Any]) -> dict[str, Any]:
    """Return options under their names here."""
    return {NAMES.get(key, key): value / 1000 if key in DELAYS else value for key, value in given.items()}


class Events:
    """Tells every event of a client or subscription."""

    def __init__(self, **place: Any) -> None:
        self.place = place

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("on_"):
            return super().__getattribute__(name)

        async def tell(ctx: Any) -> None:
            content = plain(ctx)
            content.update(content.pop("pub", None) or {})
            say({**content, **self.place, "event": name.removeprefix("on_")})

        return tell


class ClientEvents(Events, ClientEventHandler):  # type: ignore[misc]  # for the same reason
    """Those of a client."""


class SubscriptionEvents(Events, SubscriptionEventHandler):  # type: ignore[misc]  # likewise
    """Those of a subscription."""


class Driver:
    """The clients of this process."""

    def __init__(self) -> None:
        self.clients: dict[str, Client] = {}
        self.questions: dict[int, asyncio.Future[Any]] = {}

    async def ask(self, event: str, **place: Any) -> Any:
        """Ask the test."""
        number = len(self.questions) + 1
        self.questions[number] = asyncio.get_running_loop().create_future()
        say({**place, "event": event, "question": number})
        return await self.questions[number]

    async def open(
        self, who: str, url: str, options: dict[str, Any] | None = None, asks: bool = False, binary: bool = False
    ) -> None:
        """Make a client."""
        more: dict[str, Any] = {"get_token": lambda: self.ask("get_token", who=who)} if asks else {}
        self.clients[who] = Client(
            url, events=ClientEvents(who=who), use_protobuf=binary, proxy=None, **options_of(options or {}), **more
        )

    async def subscription(
        self, who: str, channel: str, options: dict[str, Any] | None = None, asks: bool = False, state: bool = False
    ) -> None:
        """Make a subscription."""
        more = options_of(options or {})
        if more.get("delta"):
            more["delta"] = DeltaType.FOSSIL
        if asks:
            more["get_token"] = lambda channel: self.ask("get_token", who=who, channel=channel)
        if state:

            async def get_state(channel: str) -> StreamPosition:
                return StreamPosition(**await self.ask("get_state", who=who, channel=channel))

            more["get_state"] = get_state
        self.clients[who].new_subscription(channel, SubscriptionEvents(who=who, channel=channel), **more)

    async def answer(self, question: int, value: Any = None, refuse: str = "") -> None:
        """Take the test's answer."""
        if refuse:
            self.questions[question].set_exception(UnauthorizedError("no") if refuse == "unauthorized" else OSError())
        else:
            self.questions[question].set_result(value)

    async def call(self, who: str, method: str, channel: str | None = None, args: Any = ()) -> Any:
        """Call a method of a client's, or of a subscription's."""
        args = list(args)
        target: Any = self.clients[who]
        if channel is not None:
            target = target.get_subscription(channel)
        if method == "ready":
            args = [30]
        more = args.pop() if method == "history" and args and isinstance(args[-1], dict) else {}
        if more.get("since"):
            more["since"] = StreamPosition(**more["since"])
        found = getattr(target, NAMES.get(method, method))(*args, **more)
        return plain(await found if asyncio.iscoroutine(found) else found)

    async def state(self, who: str, channel: str | None = None) -> str:
        """Return a state."""
        target: Any = self.clients[who]
        return str((target.get_subscription(channel) if channel is not None else target).state.value)

    async def close(self, who: str) -> None:
        """Disconnect."""
        if who in self.clients:
            await self.clients.pop(who).disconnect()

    async def carry_out(self, number: int, order: str, **rest: Any) -> None:
        """Do it, and say what came of it."""
        method: Callable[..., Any] = getattr(self, order)
        try:
            say({"number": number, "value": await method(**rest)})
        except ReplyError as exc:
            error = {"code": exc.code, "message": exc.message, "temporary": exc.temporary}
            say({"number": number, "error": error})
        except CentrifugeError as exc:
            say({"number": number, "error": {"code": None, "message": repr(exc), "temporary": False}})


async def main() -> None:
    """Do what the lines say."""
    reader = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    driver = Driver()
    tasks: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        task = asyncio.create_task(driver.carry_out(**json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


if __name__ == "__main__":
    asyncio.run(main())
