"""Forks: a child has connections of its own and leaves its parent's alone."""

from __future__ import annotations

import os
import threading
import time

from antiphon.testing.faults import ValkeyServer
from tests.engines.redis.publisher.publishing import Listener, in_child, publishing


def test_a_forked_child_has_connections_of_its_own_and_leaves_the_parents_alone(shared: ValkeyServer) -> None:
    with Listener(shared, "g:fork") as listener, publishing(shared.url) as publisher:
        publisher.publish("g:fork", b"before")
        lent = publisher._pool.take(publisher._pool.address_of(b"", 1.0), 1.0)  # as if by another thread
        publisher.publish("g:fork", b"before")
        inherited = [line._sock.fileno() for line in publisher._pool._lines]

        def child() -> object:
            shut = []
            for descriptor in inherited:
                try:
                    shut.append(os.fstat(descriptor) is None)
                except OSError:
                    shut.append(True)
            counts = [publisher.publish("g:fork", b"child %d" % number) for number in range(20)]
            return shut, set(counts), publisher.sent, publisher.connections_made

        answers = [in_child(child) for _ in range(3)]
        assert answers == [b"([True, True], {1}, 22, 3)"] * 3
        # The parent goes on with the connection it had: nobody has read from it or ended it.
        for number in range(20):
            publisher.publish("g:fork", b"parent %d" % number)
        publisher._pool.give(lent)
        publisher.publish("g:fork", b"on the one that was lent")
        assert publisher.connections_made == 2
        assert len(listener.heard()) == 2 + 3 * 20 + 20 + 1


def test_a_fork_in_the_middle_of_other_threads_publishes_hurts_neither_side(shared: ValkeyServer) -> None:
    with publishing(shared.url) as publisher:
        going, errors = threading.Event(), []

        def send() -> None:
            while not going.is_set():
                try:
                    publisher.publish("g:busy", b"x" * 2000)
                except BaseException as exc:
                    errors.append(exc)

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(8):
                time.sleep(0.03)
                assert in_child(lambda: sum(publisher.publish("g:busy", b"c") for _ in range(20))) == b"0"
        finally:
            going.set()
            for thread in threads:
                thread.join()
        assert errors == []
