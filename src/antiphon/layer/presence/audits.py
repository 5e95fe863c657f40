"""Whether a store of presence still has what a node brought there. Reads alone."""

from __future__ import annotations

from collections.abc import Mapping

from ...engines.base import PresenceStore, Present

__all__ = ["differences"]

PAGE = 250


async def differences(
    store: PresenceStore, group: str, node: str, expected: Mapping[str, Present]
) -> tuple[list[Present], list[Present]]:
    """Return what the store lacks of ``expected`` (channel -> entry), and what it has beside them.

    They are counted first, in constant time, and only read where the count is wrong.
    """
    count, _ = await store.stats(group, [node])
    if count == len(expected):
        return [], []
    found: dict[str, Present] = {}
    after = ""
    while page := (await store.page(group, [node], after, PAGE))[0]:
        found.update((present.channel, present) for present in page)
        after = page[-1].channel
    missing = [present for channel, present in expected.items() if channel not in found]
    return missing, [present for channel, present in found.items() if channel not in expected]
