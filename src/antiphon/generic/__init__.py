"""Consumers of WebSockets and of HTTP."""
