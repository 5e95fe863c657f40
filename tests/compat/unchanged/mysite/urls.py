"""Routes of the HTTP side."""

from django.contrib.auth import login
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from notify.views import notify


@csrf_exempt
def enter(request, name):
    """Log a visitor in under a name, to spare the test a form."""
    user, _ = User.objects.get_or_create(username=name)
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return HttpResponse(user.pk)


urlpatterns = [path("enter/<str:name>/", enter), path("notify/<int:user>/", notify)]
