"""The names of keys and pub/sub channels on a server."""

from __future__ import annotations

import pytest

from antiphon.engines.redis.keys import Keys
from antiphon.engines.redis.topology import shard_of, slot_of
from antiphon.exceptions import OptionError


def test_names_stand_under_the_prefix() -> None:
    keys = Keys("site")
    assert keys.channel("g:room") == b"site:a1:{g:room}"
    assert keys.topic(keys.channel("u:zoë")) == "u:zoë"
    assert keys.bound == b"site:a1:bound"
    assert keys.pattern == b"site:a1:*"


def test_a_queue_and_its_dead_queues_share_a_slot_and_a_shard_and_not_a_name() -> None:
    keys = Keys("asgi")
    names = [keys.queue("thumbs"), keys.queue("thumbs.dead"), keys.queue("thumbs.dead.dead")]
    assert names == [b"asgi:a1:{q:thumbs}", b"asgi:a1:{q:thumbs}.dead", b"asgi:a1:{q:thumbs}.dead.dead"]
    names.append(keys.wake("thumbs", "a1b2"))
    assert names[-1] == b"asgi:a1:{q:thumbs}w:a1b2"
    assert len({slot_of(name) for name in names}) == 1
    assert len({shard_of(name, 7) for name in names}) == 1
    assert slot_of(keys.queue("mails")) != slot_of(keys.queue("thumbs"))


@pytest.mark.parametrize("prefix", ["", "a b\n", "a{b}", "as*gi", "a?", "a[1]", "back\\slash", 7, None, "x" * 101])
def test_a_prefix_that_patterns_or_clusters_would_misread_is_refused(prefix: object) -> None:
    with pytest.raises(OptionError, match="prefix"):
        Keys(prefix)  # type: ignore[arg-type]
