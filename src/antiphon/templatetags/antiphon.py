"""``{% group_position %}``: where groups stood when the view read its data."""

from __future__ import annotations

import json
from typing import Any

from django import template
from django.utils.safestring import SafeString, mark_safe

from ..consumers.position_tokens import position_token
from ..django.positions import positions_read
from ..types import Position

__all__ = ["register"]

register = template.Library()


@register.simple_tag(takes_context=True)
def group_position(context: Any, *groups: str) -> str:
    """Print one signed text for the positions of groups: ``data-since="{% group_position "chat_lobby" %}"``."""
    return position_token(_read(context, groups))


@register.simple_tag(takes_context=True)
def group_position_json(context: Any, group: str) -> SafeString:
    """Print a group's position as JSON, ``{"epoch": …, "offset": …}``: ``since`` of a Centrifuge client's subscription."""
    position = _read(context, (group,))[group]
    text = json.dumps(position._asdict())
    # As json_script: it may stand in a script.
    return mark_safe(text.replace("<", "\\u003C").replace(">", "\\u003E").replace("&", "\\u0026"))  # noqa: S308


def _read(context: Any, groups: tuple[str, ...]) -> dict[str, Position]:
    request = context.get("request")
    if request is None:
        raise ValueError("{% group_position %}: the context has no request; render the template with one")
    if not groups:
        raise ValueError("{% group_position %}: expected the name of a group, or several")
    found = positions_read(request)
    missing = [group for group in groups if group not in found]
    if missing:
        raise ValueError(
            f"{{% group_position %}}: the position of {', '.join(map(repr, missing))} was not read. Put"
            f" group_positions(request, {missing[0]!r}) around what reads the view's data, or on the view"
        )
    return {group: found[group] for group in groups}
