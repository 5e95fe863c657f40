"""``HttpCommunicator``: one HTTP request to an ASGI application. Needs no server and no framework."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .address import scope_of
from .application import ApplicationCommunicator

__all__ = ["HttpCommunicator"]


class HttpCommunicator(ApplicationCommunicator):
    """Makes one HTTP request to an application.

    ``path``: with query, or a whole URL. ``body``: sent as one event. ``headers``: (name, value) pairs of bytes, names
    in lower case. For a request in pieces, or a response that never ends, use ``send_input`` and ``receive_output``.
    """

    def __init__(
        self,
        application: Any,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Iterable[tuple[bytes, bytes]] | None = None,
    ) -> None:
        if not isinstance(body, bytes):
            raise AssertionError(f"The body argument must be bytes, it is {type(body)}")
        self.body = body
        self.sent_request = False
        scope = scope_of("http", path, headers, ("http", "https"))
        super().__init__(application, {**scope, "method": method.upper()})

    async def get_response(self, timeout: float | None = 1) -> dict[str, Any]:
        """Send the request, if it was not sent yet, and return the response: "status", "headers" and "body".

        ``timeout``: seconds for each event of the response. Raises TimeoutError, and what the application raised.
        """
        if not self.sent_request:
            self.sent_request = True
            await self.send_input({"type": "http.request", "body": self.body})
        response = await self.receive_output(timeout)
        _expect(response, "http.response.start")
        body = []
        more = True
        while more:
            chunk = await self.receive_output(timeout)
            _expect(chunk, "http.response.body")
            part = chunk.get("body", b"")
            if not isinstance(part, bytes):
                raise AssertionError(f"Response body is not bytes, it is {type(part)}")
            body.append(part)
            more = chunk.get("more_body", False)
        return {"headers": [], **{k: v for k, v in response.items() if k != "type"}, "body": b"".join(body)}


def _expect(event: dict[str, Any], kind: str) -> None:
    if event["type"] != kind:
        raise AssertionError(f"Expected type '{kind}', but was '{event['type']}'")
