"""Where Django looks for an app's commands; they are in :mod:`antiphon.django.commands`."""
