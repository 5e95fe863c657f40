"""Every HTTP address of the showcase; those that stay open are in ``routing.py``."""

from django.urls import path, re_path

import chat.views
import notifications.views
import stage.views

urlpatterns = [
    path("", stage.views.landing, {"slug": "chat"}, name="landing"),
    path("both/<slug:slug>/", stage.views.landing, name="both"),
    path("sign-in/", stage.views.sign_in, name="sign_in"),
    path("sign-out/", stage.views.sign_out, name="sign_out"),
    path("break/process/", stage.views.kill_process, name="kill_process"),
    path("break/engine/", stage.views.restart_engine, name="restart_engine"),
    path("chat/", chat.views.room, {"room": "lobby"}, name="chat"),
    re_path(r"^chat/(?P<room>[a-z0-9-]{1,40})/$", chat.views.room, name="room"),
    path("notifications/", notifications.views.inbox, name="notifications"),
    path("notifications/send/", notifications.views.send, name="send"),
]
