"""What all tests share: no state of one test may be seen by the next."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from antiphon import framework
from antiphon.consumers import threads
from antiphon.layer.capture import recorders
from antiphon.layers import channel_layers
from antiphon.testing import ApplicationCommunicator, HttpCommunicator, WebsocketCommunicator
from tests.servers import (  # noqa: F401  # fixtures: real servers, started when a test asks for one
    any_server,
    fresh_prefix,
    own_valkey,
    redis7,
    valkey,
    valkey_cluster,
    valkey_cluster_with_replicas,
    valkey_sentinel,
)


@pytest.fixture(autouse=True, scope="session")
def _patient_communicators() -> None:
    """Let communicators wait for longer than their second: on a busy machine an answer may take it."""
    for method in (
        ApplicationCommunicator.receive_output,
        ApplicationCommunicator.wait,
        HttpCommunicator.get_response,
        WebsocketCommunicator.connect,
        WebsocketCommunicator.receive_from,
        WebsocketCommunicator.receive_json_from,
        WebsocketCommunicator.receive_until,
        WebsocketCommunicator.expect_close,
        WebsocketCommunicator.disconnect,
    ):
        assert method.__defaults__ is not None
        *others, timeout = method.__defaults__
        assert timeout == 1
        method.__defaults__ = (*others, 30)


@pytest.fixture(autouse=True)
def _fresh_process_state() -> Iterator[None]:
    """Give each test layers, a framework and recorders of its own."""
    backends, channel_layers.backends = channel_layers.backends, {}
    installed = framework.install(None)
    recording = list(recorders)
    yield
    channel_layers.backends = backends
    framework.install(installed)
    recorders[:] = recording
    _end_sync_pool()
    assert not framework.compat, "install_as_channels() is for a whole process: call it in a subprocess"


def _end_sync_pool() -> None:
    """End the threads of synchronous handlers: a second later they would close connections in the next test."""
    pool, threads._pool = threads._pool, None
    if pool is None:
        return
    pool.shutdown()
    for thread in threading.enumerate():
        if thread.name.startswith("antiphon-sync-") and thread not in _stuck:
            thread.join(0.5)
            if thread.is_alive():  # in a handler that hangs on purpose
                _stuck.add(thread)


_stuck: set[threading.Thread] = set()
