"""The landing page with its two windows, signing in without a password, and breaking things: a demo on your own machine."""

from django.contrib.auth import get_user_model, login, logout
from django.contrib.auth.decorators import login_required
from django.http import Http404, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_POST

from stage import breaking, listing, people, sides
from stage.pages import PAGES


@ensure_csrf_cookie  # here, once: the two windows load at the same time and must not each set their own
def landing(request, slug):
    """Show one page twice: as Ada sees it and as Grace sees it."""
    if slug not in PAGES:
        raise Http404(f"No page {slug!r}; there are: {', '.join(PAGES)}.")
    if request.META.get("SCRIPT_NAME"):
        return redirect("/")  # a landing page inside one of its own windows would nest without end
    page = PAGES[slug]
    windows = [
        {"username": username, "name": name, "src": sides.prefix(username) + reverse(slug)}
        for username, name in people.NAMES.items()
    ]
    context = {"page": page, "windows": windows, "listings": [listing.read(name) for name in page.code]}
    return render(request, "stage/landing.html", context)


@require_POST
def sign_in(request):
    """Sign in as Ada or Grace, with a session as in any application, and go to the page."""
    user = get_object_or_404(get_user_model(), username=request.POST.get("user"))
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    slug = request.POST.get("page")
    return redirect(slug if slug in PAGES else "chat")


@require_POST
def sign_out(request):
    """End the session; its sockets are closed with it."""
    logout(request)
    return redirect("/")


@login_required
@require_POST
def kill_process(request):
    """Kill the process that serves a page's connection, which the page names."""
    process = request.POST.get("process", "")
    if not breaking.breakable()["process"]:
        return JsonResponse({"report": "Nobody would start this process again."}, status=409)
    if not (process.isascii() and process.isdigit()):
        return JsonResponse({"report": "Connected to no process: nothing was killed."}, status=400)
    breaking.kill_process(int(process))
    return JsonResponse({"report": f"Killed process {process}."})


@login_required
@require_POST
def restart_engine(request):
    """Kill the engine of the demo, which is started again."""
    if not breaking.breakable()["engine"]:
        return JsonResponse({"report": breaking.breakable()["reason"]}, status=409)
    try:
        process = breaking.restart_engine()
    except OSError:
        return JsonResponse({"report": "The engine is just being restarted."})
    return JsonResponse({"report": f"Killed the engine, process {process}: it starts again from its file."})
