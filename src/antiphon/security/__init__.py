"""Security of WebSockets: see :mod:`antiphon.security.websocket`."""
