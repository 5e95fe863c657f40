"""A function in another process: it answers, fails, and is stopped, killed and started again."""

from __future__ import annotations

import asyncio
import os

import pytest

from antiphon.testing.faults import ChildProcess, Peer


def answer(peer: Peer, greeting: str) -> None:
    peer.send({"pid": os.getpid(), "greeting": greeting})
    while (got := peer.receive(None)) is not None:
        print("got", got)
        peer.send(got * 2)


async def answer_async(peer: Peer) -> None:
    while (got := await peer.receive_async(None)) is not None:
        peer.send([got, len(asyncio.all_tasks())])


def fail(peer: Peer) -> None:
    raise LookupError("on purpose")


async def test_a_child_process_answers_line_by_line() -> None:
    with ChildProcess(answer, "hello") as child:
        assert child.receive() == {"pid": child.pid, "greeting": "hello"}
        assert child.pid != os.getpid()
        child.send("ab")
        assert await child.receive_async() == "abab"
        child.send([1])
        child.send([2])
        assert [child.receive(), child.receive()] == [[1, 1], [2, 2]]
        with pytest.raises(TimeoutError):
            child.receive(0.1)
        with pytest.raises(TimeoutError):
            await child.receive_async(0.1)
        child.send(None)
        assert child.wait() == 0
        assert "got ab" in child.log_tail()
        with pytest.raises(EOFError):
            child.receive()


def test_a_coroutine_function_runs_on_a_loop_of_the_child() -> None:
    with ChildProcess(answer_async) as child:
        child.send("x")
        assert child.receive() == ["x", 1]
        child.send("x" * 1_000_000)
        assert len(child.receive()[0]) == 1_000_000


def test_a_child_that_raises_tells_in_its_log() -> None:
    with ChildProcess(fail) as child:
        with pytest.raises(EOFError, match="on purpose"):
            child.receive()
        assert child.wait() == 1


def test_a_function_that_does_not_exist_fails_at_the_start() -> None:
    with pytest.raises(RuntimeError, match="no_such_function"):
        ChildProcess("antiphon.names:no_such_function").__enter__()


def test_a_child_is_stopped_resumed_killed_and_started_again() -> None:
    with ChildProcess(answer, "hello") as child:
        child.receive()
        child.stop()
        child.send("a")
        with pytest.raises(TimeoutError):
            child.receive(0.2)
        child.resume()
        assert child.receive() == "aa"
        child.kill()
        with pytest.raises(EOFError):
            child.receive()
        child.restart()
        assert child.receive()["greeting"] == "hello"
