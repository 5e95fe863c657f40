"""A synchronous view that tells a user something."""

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.http import HttpResponse
from django.views.decorators.csrf import csrf_exempt


@csrf_exempt
def notify(request, user):
    channel_layer = get_channel_layer()
    async_to_sync(channel_layer.group_send)(
        f"notifications_{user}", {"type": "send_notification", "text": request.POST["text"]}
    )
    return HttpResponse("sent")
