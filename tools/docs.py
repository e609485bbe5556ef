"""Writes the generated pages of docs/ and the dashboards, or says which are stale.

    tools/docs.py              writes them
    tools/docs.py --check      prints one line for each page that differs from what would be written; exits 1 if one does

Both print one line for each test that a page names and that is not there, and exit 1 if there is one.

A generator is a function without arguments that returns the page's text; it is registered in `PAGES` by the page's path.
"""

from __future__ import annotations

import difflib
import functools
import sys
from collections.abc import Callable, Mapping

import api_reference
import bank_page
import cli_page
import dashboards
import databases_page
import exceptions_page
import journal_page
import metrics_page
import named_tests
import protocol_page
import settings_page
from workspace import ROOT

PAGES: Mapping[str, Callable[[], str]] = {
    "docs/api.md": api_reference.page,
    "docs/bank.md": bank_page.page,
    "docs/cli.md": cli_page.page,
    "docs/databases.md": databases_page.page,
    "docs/exceptions.md": exceptions_page.page,
    "docs/journal.md": journal_page.page,
    "docs/metrics.md": metrics_page.page,
    "docs/protocol.md": protocol_page.page,
    "docs/settings.md": settings_page.page,
    **{
        f"deploy/observability/dashboards/{name}.json": functools.partial(dashboards.document, name)
        for name in dashboards.DASHBOARDS
    },
}


def main() -> int:
    """Returns the exit code: 1 when asked to check and a page is stale."""
    check, stale = "--check" in sys.argv[1:], 0
    for name, generate in PAGES.items():
        path = ROOT / name
        there, fresh = path.read_text() if path.is_file() else "", generate()
        if there == fresh:
            continue
        if check:
            stale += 1
            print(f"{name} is not what would be generated: run `make docs`")
            print("\n".join(list(difflib.unified_diff(there.splitlines(), fresh.splitlines(), lineterm="", n=0))[2:12]))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(fresh)
    for sentence in named_tests.missing():
        stale += 1
        print(sentence)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
