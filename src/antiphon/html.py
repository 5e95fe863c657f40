"""Fragments of pages for groups: ``broadcast_html`` from views and tasks, ``abroadcast_html`` from asynchronous code."""

from .django.html import abroadcast_html, broadcast_html

__all__ = ["abroadcast_html", "broadcast_html"]
