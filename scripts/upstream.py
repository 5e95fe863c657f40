#!/usr/bin/env python3
"""Run Channels' own tests, unedited, against Antiphon under the name ``channels``.

    make upstream CHANNELS=<a checkout of Channels 4.3.2>

Only the tests are copied, so that the checkout's own ``channels`` package cannot be what is tested. Left out:
``tests/sample_project``, whose two tests need Selenium.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

VERSION = "4.3.2"
# 80 of that version's 82; the other two are in tests/sample_project.
EXPECTED = 80

RUN = """
import sys
import antiphon
antiphon.install_as_channels()
import channels.layers
assert channels.layers.__name__.startswith("antiphon."), channels.layers
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def main() -> int:
    """Run the suite of the checkout that is given; without one, say so."""
    if len(sys.argv) != 2:
        print(f"No checkout of Channels {VERSION} given: nothing was run. Say: make upstream CHANNELS=<directory>")
        return 0
    checkout = Path(sys.argv[1]).expanduser().resolve()
    if not (checkout / "tests" / "test_inmemorychannel.py").is_file():
        print(f"{checkout}: expected a checkout of Channels {VERSION}, with tests/ in it", file=sys.stderr)
        return 2
    found = re.search(r'__version__ = "(.+?)"', (checkout / "channels" / "__init__.py").read_text())
    if found is None or found[1] != VERSION:
        print(f"{checkout}: this is Channels {found and found[1]}; the suite of {VERSION} is what is promised")
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(checkout / "tests", Path(scratch) / "tests")
        # The two lines of upstream's own configuration that its tests rely on.
        (Path(scratch) / "pytest.ini").write_text(
            "[pytest]\ntestpaths = tests\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
        )
        environment = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
        # -p no:antiphon: our plug-in is for our users' suites; upstream's must pass without it.
        options = [
            "-q",
            "-p",
            "no:antiphon",
            "-p",
            "no:cacheprovider",
            "-W",
            "ignore::pytest.PytestAssertRewriteWarning",
            "--ignore=tests/sample_project",
            "--timeout=60",
        ]
        ended = subprocess.run(
            [sys.executable, "-c", RUN, *options, *os.environ.get("ARGS", "").split()],
            cwd=scratch,
            env=environment,
            check=False,
            stdout=subprocess.PIPE,
            text=True,
        )
    print(ended.stdout, end="")
    counted = re.search(r"(\d+) passed", ended.stdout)
    passed = int(counted[1]) if counted else 0
    whole = found is not None and found[1] == VERSION and not os.environ.get("ARGS")
    if ended.returncode == 0 and whole and passed != EXPECTED:
        print(f"expected {EXPECTED} tests to pass; {passed} did", file=sys.stderr)
        return 1
    return ended.returncode


if __name__ == "__main__":
    sys.exit(main())
