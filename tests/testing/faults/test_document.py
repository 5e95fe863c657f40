"""What the documents say of the fault tools."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

from antiphon.testing import faults

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "testing.md"


def test_the_package_exports_what_it_documents() -> None:
    documented = DOCUMENT.read_text()
    assert [name for name in faults.__all__ if f"`{name}" not in documented] == []


def test_the_example_of_the_documents_runs() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    (example,) = [block for block in blocks if "test_a_half_open_link_holds_up_nothing" in block]
    exec(example, names)
    asyncio.run(names["test_a_half_open_link_holds_up_nothing"]())
