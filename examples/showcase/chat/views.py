"""The page of one chat room, with what was said last."""

from antiphon.exceptions import EngineUnavailable
from antiphon.layers import get_channel_layer
from antiphon.positions import group_positions
from asgiref.sync import async_to_sync
from django.contrib.auth.decorators import login_required
from django.shortcuts import render

from stage import listing
from stage.pages import PAGES

ROOMS = ["lobby", "kitchen", "library"]
SHOWN = 50


@login_required
@group_positions("chat_{room}")  # read before the messages: what is said from then on reaches the page by its socket
def room(request, room):
    """Show a room; any name in the address makes one."""
    page = PAGES["chat"]
    group = f"chat_{room}"
    try:
        messages = [said.message for said in async_to_sync(get_channel_layer().history)(group, limit=SHOWN)]
    except EngineUnavailable:
        messages = []  # the page learns from its socket that it must load them again
    context = {
        "page": page,
        "room": room,
        "group": group,
        "rooms": ROOMS if room in ROOMS else [*ROOMS, room],
        "messages": messages,
        "listings": [listing.read(name) for name in page.code],
    }
    return render(request, "chat/room.html", context)
