"""The server side of a socket: protocol classes for uvicorn (the extra ``server``).

uvicorn mysite.asgi:application --ws antiphon.server:WebSocketProtocol --http antiphon.server:HTTPProtocol
"""

from ..exceptions import MissingExtra

try:
    import uvicorn as _uvicorn  # noqa: F401  -- only to say what is missing
except ImportError:
    raise MissingExtra.of("uvicorn", "server", "antiphon.server") from None

from .http import HTTPProtocol
from .protocol import WebSocketProtocol

__all__ = ["HTTPProtocol", "WebSocketProtocol"]
