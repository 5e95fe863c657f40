"""The page of a user's notifications, and the view that sends one."""

from antiphon.positions import group_positions
from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import login_required
from django.core.management import call_command
from django.http import JsonResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_POST

from notifications.sending import notify, notify_from_thread
from stage import listing
from stage.pages import PAGES


@login_required
def inbox(request):
    """Show the newest notifications; the page adds those that arrive."""
    page = PAGES["notifications"]
    group = f"notifications_{request.user.pk}"
    # The position first: what arrives while the rows are read reaches the page by its connection.
    with group_positions(request, group):
        notifications = list(request.user.notifications.select_related("sender")[:20])
    context = {
        "page": page,
        "group": group,
        "people": get_user_model().objects.order_by("username"),
        "notifications": notifications,
        "listings": [listing.read(name) for name in page.code],
    }
    return render(request, "notifications/inbox.html", context)


@login_required
@require_POST
def send(request):
    """Send one notification the way the button that was pressed says; answers what was done."""
    recipient = get_object_or_404(get_user_model(), username=request.POST.get("to"))
    text = request.POST.get("text", "").strip()[:200]
    source = request.POST.get("source")
    if not text:
        return JsonResponse({"report": "Write a text first."}, status=400)
    if source == "view":
        notify(request.user, recipient, text, "view")
        report = "The view has stored it; the message is on its way."
    elif source == "command":
        call_command("notify", recipient.username, text, sender=request.user.username)
        report = "The command has stored it; the message is on its way."
    elif source in {"thread", "rollback"}:
        notify_from_thread(request.user, recipient, text, commit=source == "thread")
        report = "A thread has sent it, inside a transaction that is still open…"
    else:
        return JsonResponse({"report": f"Unknown source {source!r}."}, status=400)
    return JsonResponse({"report": report})
