"""Fragments of pages for groups: a template is rendered once, where the sender is, and every member's page shows it.

What is sent is plain HTML with htmx's ``hx-swap-oob``, which htmx 2 and 4 understand over WebSockets and over server-sent
events. Knows no consumer.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.template.loader import render_to_string
from django.utils.html import escape

from ..layer.registry import DEFAULT_CHANNEL_LAYER, get_channel_layer
from ..layer.sync import group_send
from ..types import Message, Receipt

__all__ = ["SWAPS", "abroadcast_html", "broadcast_html"]

logger = logging.getLogger("antiphon.layer")

# Ways to put a fragment into a page: https://htmx.org/attributes/hx-swap-oob/
SWAPS = ("innerHTML", "outerHTML", "beforebegin", "afterbegin", "beforeend", "afterend", "delete")
_TAG = re.compile(r"[a-z][a-z0-9-]*")
# An id alone is enough for htmx 2 over a WebSocket, and for nothing else.
_ADDRESSED = re.compile(r"<[a-zA-Z][^>]*\s(data-)?hx-swap-oob\s*=|<(turbo-stream|hx-partial)\b")
_warned: set[str] = set()


def broadcast_html(
    group: str,
    template: str | list[str],
    context: Mapping[str, Any] | None = None,
    *,
    target: str | None = None,
    swap: str = "beforeend",
    wrap: str = "div",
    event: str | None = None,
    **options: Any,
) -> Receipt:
    """Render a template and send it to a group, from synchronous code; inside a transaction, after its commit.

    ``target``: a CSS selector of where it goes in each page; None: the template says so itself, with an ``id``
    and ``hx-swap-oob="true"``. ``swap``: how, as htmx's ``hx-swap``. ``wrap``: the element around the fragment, which the page does not
    keep; ``tbody`` for rows of a table; with ``outerHTML`` it is what the page keeps. ``event``: the name of the event of
    a stream. ``options``: as of ``antiphon.group_send`` (``exclude``, ``idempotency_key``, ``layer``, …).
    All members get the same text: nothing in it may be meant for one user. The template gets no request, for that reason.
    Raises TemplateDoesNotExist, ValueError for a wrong ``swap``, ``target`` or ``wrap``; else as ``antiphon.group_send``.
    """
    return group_send(group, _message(template, context, target, swap, wrap, event), **options)


async def abroadcast_html(
    group: str,
    template: str | list[str],
    context: Mapping[str, Any] | None = None,
    *,
    target: str | None = None,
    swap: str = "beforeend",
    wrap: str = "div",
    event: str | None = None,
    layer: str = DEFAULT_CHANNEL_LAYER,
    **options: Any,
) -> Receipt:
    """The same from asynchronous code; it leaves at once, whatever transaction is open. Templates render on a thread."""
    render = sync_to_async(_message, thread_sensitive=True)
    message = await render(template, context, target, swap, wrap, event)
    receipt: Receipt = await get_channel_layer(layer).group_send(group, message, **options)
    return receipt


def _message(
    template: str | list[str],
    context: Mapping[str, Any] | None,
    target: str | None,
    swap: str,
    wrap: str,
    event: str | None,
) -> Message:
    if swap not in SWAPS:
        raise ValueError(f"swap: expected one of {', '.join(SWAPS)}; got {swap!r:.80}")
    if not isinstance(wrap, str) or not _TAG.fullmatch(wrap):
        raise ValueError(f"wrap: expected the name of an element; got {wrap!r:.80}")
    if target is not None and (not isinstance(target, str) or not target.strip()):
        raise ValueError(f"target: expected a CSS selector; got {target!r:.80}")
    html = render_to_string(template, dict(context) if context is not None else None).strip()
    if target is not None:
        html = f'<{wrap} hx-swap-oob="{swap}:{escape(target)}">{html}</{wrap}>'
    elif settings.DEBUG and not _ADDRESSED.search(html):
        _warn(str(template))
    message: Message = {"type": "html.fragment", "html": html}
    if event is not None:
        message["event"] = event
    return message


def _warn(template: str) -> None:
    if template not in _warned:
        _warned.add(template)
        logger.warning(
            "%s names no place: no element has hx-swap-oob, so htmx shows it nowhere, or in the wrong place. Pass target='#messages',"
            ' or write hx-swap-oob="true" beside an id',
            template,
        )
