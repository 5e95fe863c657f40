"""Order, as a property of any program: each member hears what one lane sent to one group in the order of the calls."""

# ruff: noqa: S101, D102 -- tests that are shipped are tests: they assert, and their names say what

from __future__ import annotations

import asyncio
from typing import Any

from .base import SuiteBase, numbered

GROUPS, LANES = 3, 3


class OrderTests(SuiteBase):
    """Programs that hypothesis makes up."""

    def test_each_lane_is_heard_in_its_order_whatever_the_program(self) -> None:
        from hypothesis import HealthCheck, example, given, settings
        from hypothesis import strategies as st

        step = st.tuples(st.integers(0, LANES - 1), st.integers(0, GROUPS), st.integers(0, 2))

        @settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @example(
            program=[(lane, group, 0) for lane in range(LANES) for group in (0, GROUPS) for _ in range(10)],
            awaited=False,
        )
        @given(program=st.lists(step, min_size=1, max_size=60), awaited=st.booleans())
        def holds(program: list[tuple[int, int, int]], awaited: bool) -> None:
            self.setup_method()  # a space of its own for each program
            asyncio.run(self.play(self._run_program(program, awaited=awaited)))

        holds()

    async def _run_program(self, program: list[tuple[int, int, int]], *, awaited: bool) -> None:
        """Run [(lane, group, pauses)]; the group after the last is all of them at once. Lane 0 is here, 2 a thread."""
        layer = self.make_layer(capacity=1000)
        there = self.loop()
        groups = [f"g{n}" for n in range(GROUPS)]
        members = [await self.member(layer, group) for group in groups]
        members.append(await self.member(layer, *groups))
        channel = await there.run(layer.new_channel())
        for group in groups:
            await layer.group_add(group, channel)
        sends = [[step for step in enumerate(program) if step[1][0] == lane] for lane in range(LANES)]

        async def lane(steps: list[tuple[int, tuple[int, int, int]]]) -> None:
            pending: list[asyncio.Future[Any]] = []
            for n, (_, group, pauses) in steps:
                targets = groups if group == GROUPS else [groups[group]]
                send = asyncio.ensure_future(layer.groups_send(targets, numbered(n)))
                if awaited:
                    await send
                pending.append(send)
                for _ in range(pauses):
                    await asyncio.sleep(0)
            await asyncio.gather(*pending)

        def thread() -> None:
            for n, (_, group, _) in sends[2]:
                targets = groups if group == GROUPS else [groups[group]]
                extra = {"t": [f"g:{target}" for target in targets]} if len(targets) > 1 else None
                layer.publish_blocking([f"g:{target}" for target in targets], layer.encode(numbered(n)), extra)

        await asyncio.gather(lane(sends[0]), there.run(lane(sends[1])), asyncio.to_thread(thread))
        for member, heard_groups in zip(members, [*([n] for n in range(GROUPS)), list(range(GROUPS))], strict=True):
            self._check(program, heard_groups, await member.hears(_count(program, heard_groups)))
        theirs = [(await there.run(layer.receive(channel)))["n"] for _ in program]
        self._check(program, list(range(GROUPS)), theirs)

    def _check(self, program: list[tuple[int, int, int]], groups: list[int], heard: list[int]) -> None:
        assert sorted(heard) == [n for n, step in enumerate(program) if step[1] in groups or step[1] == GROUPS]
        for lane in range(LANES):
            for group in (*groups, GROUPS):
                part = [n for n in heard if program[n][0] == lane and program[n][1] == group]
                assert part == sorted(part), f"lane {lane}, group {group}"


def _count(program: list[tuple[int, int, int]], groups: list[int]) -> int:
    return sum(step[1] in groups or step[1] == GROUPS for step in program)
