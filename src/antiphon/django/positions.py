"""The positions of groups in a page: read before the view reads its data, printed by ``{% group_position %}``.

A message that comes after the view has read its data, and before the page has joined its group, is after the position that
the page presents: it is recovered.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest

from ..consumers.position_tokens import NOWHERE
from ..exceptions import EngineUnavailable
from ..layer.registry import DEFAULT_CHANNEL_LAYER, get_channel_layer
from ..names import require_group
from ..types import Position

__all__ = ["group_positions", "positions_read"]

logger = logging.getLogger("antiphon.layer")

_ATTRIBUTE = "_antiphon_positions"

# A group, as text in which the view's arguments may stand, or a function of the request and the view's arguments.
Name: TypeAlias = str | Callable[..., str]
View = TypeVar("View", bound=Callable[..., Any])


class group_positions:  # noqa: N801  # used as a function: a context manager, or a decorator
    """Read the positions of groups, for ``{% group_position %}`` in what is rendered for a request.

    Around what reads a view's data, or as the view's decorator::

        with group_positions(request, "chat_lobby"):
            messages = Message.objects.all()[:50]

        @group_positions("chat_{room}")
        def chat(request, room): ...

    ``async with`` in an ``async def``; the decorator takes views of both kinds. As a decorator a name may have the view's
    arguments in it, or be a function of the request and them. ``layer``: the alias. Where the engine is away the page is
    rendered all the same: its position is that of no history, so it is told that it cannot recover.
    Raises OptionError for a group without history, TypeError for a wrong name.
    """

    def __init__(self, *names: HttpRequest | Name, layer: str = DEFAULT_CHANNEL_LAYER) -> None:
        first = names[0] if names else None
        self._request = first if isinstance(first, HttpRequest) else None
        groups = names if self._request is None else names[1:]
        if not groups:
            raise TypeError("group_positions: expected the name of a group, or several")
        for name in groups:
            if not isinstance(name, str) and (self._request is not None or not callable(name)):
                raise TypeError(f"group_positions: expected the name of a group; got {name!r:.80}")
        self._names: tuple[Any, ...] = groups
        self._alias = layer

    def __repr__(self) -> str:
        return f"<group_positions of {', '.join(map(repr, self._names))}>"

    # Around some code

    def __enter__(self) -> dict[str, Position]:
        """Read the positions: group -> position."""
        request, groups = self._bound()
        layer: Any = get_channel_layer(self._alias)
        try:
            found = layer.positions_blocking(groups)
        except EngineUnavailable as exc:
            found = _unknown(groups, exc)
        return _keep(request, found)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Keep them for the template, which may be rendered later."""

    async def __aenter__(self) -> dict[str, Position]:
        """Read the positions: group -> position."""
        request, groups = self._bound()
        layer: Any = get_channel_layer(self._alias)
        try:
            found = await layer.positions(groups)
        except EngineUnavailable as exc:
            found = _unknown(groups, exc)
        return _keep(request, found)

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Keep them for the template, which may be rendered later."""

    def _bound(self) -> tuple[HttpRequest, list[str]]:
        if self._request is None:
            raise TypeError("group_positions: expected the request first: with group_positions(request, 'name')")
        for name in self._names:
            require_group(name)
        return self._request, list(self._names)

    # As a decorator

    def __call__(self, view: View) -> View:
        """Read the positions before each call of a view."""
        if self._request is not None:
            raise TypeError("group_positions: a decorator takes no request: @group_positions('name')")

        def of(request: HttpRequest, args: tuple[Any, ...], kwargs: dict[str, Any]) -> group_positions:
            arguments = _arguments(view, request, args, kwargs)
            names = [
                name.format_map(arguments) if isinstance(name, str) else name(request, *args, **kwargs)
                for name in self._names
            ]
            return group_positions(request, *names, layer=self._alias)

        if iscoroutinefunction(view):

            @functools.wraps(view)
            async def async_view(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                async with of(request, args, kwargs):
                    return await view(request, *args, **kwargs)

            return async_view  # type: ignore[return-value]  # it has the view's signature

        @functools.wraps(view)
        def sync_view(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            with of(request, args, kwargs):
                return view(request, *args, **kwargs)

        return sync_view  # type: ignore[return-value]  # as above


def positions_read(request: Any) -> dict[str, Position]:
    """Return the positions that were read for a request: group -> position."""
    found: dict[str, Position] = getattr(request, _ATTRIBUTE, {})
    return found


def _keep(request: HttpRequest, found: dict[str, Position]) -> dict[str, Position]:
    # The first reading counts: what was read after it may be older than a second one.
    kept = {**found, **positions_read(request)}
    setattr(request, _ATTRIBUTE, kept)
    return {group: kept[group] for group in found}


def _unknown(groups: list[str], exc: Exception) -> dict[str, Position]:
    logger.warning("The positions of %s cannot be read; the page will not recover: %s", ", ".join(groups), exc)
    return dict.fromkeys(groups, NOWHERE)


def _arguments(view: Any, request: HttpRequest, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    if not args:
        return kwargs
    bound = inspect.signature(view).bind_partial(request, *args, **kwargs)
    return dict(bound.arguments)
