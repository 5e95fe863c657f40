"""The other way round: our layer under the real Channels, and our consumers over the real one's layer.

Each file of ``with_channels/`` runs in a process of its own, in which the real Channels can be imported.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Run

HERE = Path(__file__).parent / "with_channels"


@pytest.mark.parametrize(("name", "layer"), [("backend", "antiphon"), ("foreign_layer", "channels")])
def test_each_of_its_tests_passes(run: Run, real_channels: Path, name: str, layer: str) -> None:
    options = ("-q", "-c", str(HERE / "pytest.ini"))
    said = run("-m", "pytest", *options, str(HERE / f"{name}.py"), path=(real_channels, HERE), LAYER=layer)
    assert " passed" in said
    assert "skipped" not in said
