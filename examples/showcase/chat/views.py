"""The page of one chat room."""

from django.contrib.auth.decorators import login_required
from django.shortcuts import render

from stage import listing
from stage.pages import PAGES

ROOMS = ["lobby", "kitchen", "library"]


@login_required
def room(request, room):
    """Show a room; any name in the address makes one."""
    page = PAGES["chat"]
    context = {
        "page": page,
        "room": room,
        "rooms": ROOMS if room in ROOMS else [*ROOMS, room],
        "listings": [listing.read(name) for name in page.code],
    }
    return render(request, "chat/room.html", context)
