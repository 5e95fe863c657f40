from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from antiphon.utils import await_many_dispatch, name_that_thing


class Thing:
    def method(self) -> None: ...

    @classmethod
    def build(cls) -> None: ...


def test_things_are_named_by_their_dotted_path() -> None:
    here = __name__
    assert name_that_thing(Thing) == f"{here}.Thing"
    assert name_that_thing(Thing()) == f"{here}.Thing"
    assert name_that_thing(Thing().method) == f"{here}.Thing.method"
    assert name_that_thing(Thing.build) == f"{here}.Thing.build"
    assert (
        name_that_thing(test_things_are_named_by_their_dotted_path)
        == f"{here}.{test_things_are_named_by_their_dotted_path.__name__}"
    )
    assert name_that_thing(1) == "builtins.int"


async def test_results_of_all_sources_are_dispatched_one_at_a_time() -> None:
    one: asyncio.Queue[int] = asyncio.Queue()
    two: asyncio.Queue[int] = asyncio.Queue()
    seen, running, complete = [], 0, asyncio.Event()

    async def dispatch(value: int) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.001)
        running -= 1
        seen.append(value)
        if len(seen) == 6:
            complete.set()

    loop = asyncio.create_task(await_many_dispatch([one.get, two.get], dispatch))
    for value in range(6):
        (one if value % 2 else two).put_nowait(value)
    await asyncio.wait_for(complete.wait(), 30)
    assert sorted(seen) == list(range(6))
    assert [v for v in seen if v % 2] == [1, 3, 5]
    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop


async def test_what_ends_it_is_raised_and_the_other_sources_are_cancelled() -> None:
    endless: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def give() -> int:
        failed.set_exception(OSError("unseen"))
        return 1

    async def stop(value: int) -> None:
        raise KeyError(value)

    def source(of: asyncio.Future[None]) -> Awaitable[None]:
        return of

    with pytest.raises(KeyError):
        await await_many_dispatch([give, lambda: source(endless), lambda: source(failed)], stop)
    assert endless.cancelled()
