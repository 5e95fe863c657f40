"""The tables of docs/performance.md are what the command writes from the kept results, and say what was missed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(__file__).resolve().parents[1] / "benchmarks" / "tables.py"
pytestmark = pytest.mark.skipif(not COMMAND.exists(), reason="the benchmarks are no part of an sdist")


def tables(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(COMMAND), *options], capture_output=True, text=True, check=False)


def test_the_document_has_what_the_kept_results_say() -> None:
    found = tables("--check")
    assert found.returncode == 0, f"make tables; it would change:\n{found.stdout}{found.stderr}"


def test_the_newest_full_run_is_kept_and_shown_with_what_it_missed_and_lost(tmp_path: Path) -> None:
    def run(date: str, rate: float, *, quick: bool) -> None:
        figures = {"a": {"deliveries_per_s": rate, "lost": 3.0}, "b": {"deliveries_per_s": 10.0}}
        ratio = {
            "of": "a",
            "to": ["b"],
            "hardest": "largest",
            "figure": "deliveries_per_s",
            "median": rate / 10,
            "least": 1.0,
            "most": 9.0,
        }
        record = {
            "benchmark": "made_up",
            "date": f"{date}T00:00:00Z",
            "quick": quick,
            "commit": "1234567+",
            "machine": {"cpu": "CPU", "cores": 2, "system": "Linux", "python": "CPython 3.11"},
            "versions": {"a": {"django": "5.2"}},
            "rounds": [figures] * 5,
            "medians": figures,
            "ratios": {"a to b": {**ratio, "bound": ">= 8", "met": rate >= 80}},
        }
        (tmp_path / f"made_up-{date.replace('-', '')}T000000Z.local.json").write_text(json.dumps(record))

    run("2026-01-01", 111, quick=False)
    run("2026-01-02", 55, quick=False)
    run("2026-01-03", 99, quick=True)
    document = tmp_path / "document.md"
    document.write_text("Before.\n<!-- bench: made_up -->\n<!-- end -->\nAfter.\n")
    where = ("--document", str(document), "--results", str(tmp_path))

    assert tables("--keep", *where).returncode == 0
    text = document.read_text()
    assert "| a | 55 |" in text.replace(" | 3 |", " |")
    assert "| 5.5 | 1 to 9 | ≥ 8 | **MISSED** |" in text
    assert "**LOST**: 3 messages of a." in text
    assert "2 January 2026" in text
    assert "commit 1234567 with changes" in text
    assert text.startswith("Before.\n")
    assert text.endswith("After.\n")
    assert tables("--check", *where).returncode == 0

    document.write_text(text.replace("55", "56"))
    assert tables("--check", *where).returncode == 1
