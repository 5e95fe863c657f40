"""Users that are loaded again: once for those who ask together, never from before they asked, into their own object."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db.models.signals import post_init

from antiphon.django.framework import framework
from antiphon.django.renewal import Shared, renew
from tests.waiting import until


async def test_work_is_done_once_for_those_who_ask_together_and_again_for_who_comes_later() -> None:
    shared, begun, gate = Shared(), [0], asyncio.Event()

    async def work() -> int:
        begun[0] += 1
        mine = begun[0]
        await gate.wait()
        return mine

    first = [asyncio.create_task(shared.do("ada", work)) for _ in range(3)]
    other = asyncio.create_task(shared.do("bob", work))
    await until(lambda: begun[0] == 2)
    late = asyncio.create_task(shared.do("ada", work))  # what was begun may not know what this one asks about
    await until(lambda: begun[0] == 3)
    gate.set()
    assert len(set(await asyncio.gather(*first))) == 1
    assert len({await first[0], await other, await late}) == 3


async def test_a_failure_is_everybodys() -> None:
    async def work() -> None:
        raise ZeroDivisionError

    shared = Shared()
    outcomes = await asyncio.gather(*(shared.do("ada", work) for _ in range(2)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ZeroDivisionError, ZeroDivisionError]


def test_a_user_keeps_what_an_application_has_put_on_it() -> None:
    user, fresh = User(pk=1, username="ada"), User(pk=1, username="ada", is_staff=True)
    user.tenant = "acme"  # type: ignore[attr-defined]
    user._perm_cache = {"auth.view_user"}  # type: ignore[attr-defined]
    renew(user, fresh)
    assert (user.is_staff, user.tenant, hasattr(user, "_perm_cache")) == (True, "acme", False)  # type: ignore[attr-defined]


@pytest.mark.django_db(transaction=True)
async def test_the_connections_of_a_user_share_one_query_and_all_are_up_to_date() -> None:
    ada = await User.objects.acreate(username="ada")
    scopes: list[dict[str, Any]] = [{"user": await User.objects.aget(pk=ada.pk)} for _ in range(5)]
    await User.objects.aupdate(is_staff=True)
    loaded: list[Any] = []

    def note(*, instance: Any, **kwargs: Any) -> None:
        loaded.append(instance)

    post_init.connect(note, sender=User)
    try:
        assert await asyncio.gather(*map(framework.revalidate, scopes)) == [None] * 5
    finally:
        post_init.disconnect(note, sender=User)
    assert len(loaded) == 1
    assert all(scope["user"].is_staff for scope in scopes)
    assert len({id(scope["user"]) for scope in scopes}) == 5


async def test_somebody_whom_django_does_not_know_is_nobody_to_ask_about() -> None:
    class Machine:
        pk, is_authenticated = 7, True

    assert await framework.revalidate({"user": Machine()}) is None
