"""The clock that runs ahead for the package alone."""

from __future__ import annotations

import sys
import time

import pytest

from antiphon.testing.faults import clock_offset


def test_a_clock_runs_ahead_for_the_package_alone() -> None:
    from antiphon.layer import lag

    now = time.time()
    with clock_offset(86_400):
        assert lag.time.time() - now == pytest.approx(86_400, abs=60)  # type: ignore[attr-defined]
        assert lag.time.time_ns() / 1e9 - now == pytest.approx(86_400, abs=60)  # type: ignore[attr-defined]
        assert lag.time.monotonic() == pytest.approx(time.monotonic(), abs=60)  # type: ignore[attr-defined]
        assert time.time() - now == pytest.approx(0, abs=60)
        with clock_offset(-3600):
            assert lag.time.time() - now == pytest.approx(82_800, abs=60)  # type: ignore[attr-defined]
        assert lag.time.time() - now == pytest.approx(86_400, abs=60)  # type: ignore[attr-defined]
    assert lag.time is time  # type: ignore[attr-defined]


def test_a_name_imported_from_time_is_shifted_too() -> None:
    module = type(sys)("antiphon.layer.temporary")
    vars(module)["now"] = time.time
    sys.modules[module.__name__] = module
    try:
        with clock_offset(3600), clock_offset(3600):
            assert module.now() - time.time() == pytest.approx(7200, abs=60)
        assert module.now is time.time
    finally:
        del sys.modules[module.__name__]
