"""The plain HTTP side of the tests' project."""

from __future__ import annotations

from django.contrib.auth import alogout, logout
from django.http import HttpRequest, HttpResponse
from django.urls import path


def index(request: HttpRequest) -> HttpResponse:
    """Answer with the name of the user."""
    return HttpResponse(request.user.get_username() or "anonymous", content_type="text/plain")


def log_out(request: HttpRequest) -> HttpResponse:
    """Log out, the synchronous way."""
    logout(request)
    return HttpResponse("bye", content_type="text/plain")


async def alog_out(request: HttpRequest) -> HttpResponse:
    """Log out on the running loop."""
    await alogout(request)
    return HttpResponse("bye", content_type="text/plain")


urlpatterns = [path("", index), path("logout/", log_out), path("alogout/", alog_out)]
