"""``EngineSuite``: what every engine and its layer must do, as tests that the author of an engine subclasses.

The tests know the layer's contract and no engine. They use pytest and hypothesis, nothing of either's plug-ins.
"""

from __future__ import annotations

from .base import CAPABILITIES, SuiteBase
from .delivery import DeliveryTests
from .groups import GroupTests
from .history import HistoryTests
from .limits import LimitTests
from .loops import LoopTests
from .order import OrderTests
from .outages import OutageTests
from .presence import PresenceTests
from .processes import ProcessTests
from .secrecy import SecrecyTests
from .workers import WorkerTests

__all__ = ["CAPABILITIES", "EngineSuite"]


class EngineSuite(
    DeliveryTests,
    GroupTests,
    HistoryTests,
    LimitTests,
    LoopTests,
    OrderTests,
    OutageTests,
    PresenceTests,
    ProcessTests,
    SecrecyTests,
    WorkerTests,
    SuiteBase,
):
    """The tests of one engine. A subclass, whose name starts with ``Test``, says what is tested and what it can do.

    ``backend``: the layer's dotted path, as in ``CHANNEL_LAYERS``. ``config(space)``: its options, as JSON can hold
    them; layers of one space hear each other, and no others. ``capabilities``: a set of names, each of which adds
    tests; without a capability its tests are skipped, and say so:

    - ``worker_channels``: channels without "!", read by competing workers
    - ``processes``: it reaches other processes
    - ``encryption``: it has the option ``symmetric_encryption_keys``
    - ``history``: it keeps logs
    - ``presence``: it keeps who is in a group
    - ``faults``: there is a server, which ``kill_engine()`` kills and ``restart_engine()`` brings back

    A test ends after ``limit_s`` seconds.
    """
