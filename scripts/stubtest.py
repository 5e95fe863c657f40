#!/usr/bin/env python3
"""Check Antiphon under the name ``channels`` against typeshed's stubs of Channels (types-channels), with mypy.stubtest.

Nothing of Channels may be missing, renamed or reordered. What Antiphon adds, and what the real package itself fails,
stands in tests/typing/stubtest_allowlist.txt, each with its reason; an entry that is no longer needed is an error.

    make stubtest ARGS=--generate-allowlist      print the entries that would be needed
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALLOWLIST = ROOT / "tests" / "typing" / "stubtest_allowlist.txt"


def main() -> int:
    """Run stubtest on the alias."""
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.project.settings")

    import antiphon

    antiphon.install_as_channels()

    import django
    from mypy import stubtest

    django.setup()
    generate = "--generate-allowlist" in sys.argv
    allow = [] if generate else ["--allowlist", str(ALLOWLIST)]
    arguments = ["channels", "--ignore-disjoint-bases", *allow, *sys.argv[1:]]
    # The project's own configuration is for its sources; the stubs want Django's plug-in alone.
    configuration = ROOT / "tests" / "typing" / "stubtest.ini"
    return stubtest.test_stubs(stubtest.parse_options([*arguments, "--mypy-config-file", str(configuration)]))


if __name__ == "__main__":
    sys.exit(main())
