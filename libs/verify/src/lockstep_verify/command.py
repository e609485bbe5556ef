"""`python -m lockstep_verify BUNDLE --trust TRUST`: prints what a bundle proves."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from lockstep_verify.documents import DOCUMENT_BYTES_MAX
from lockstep_verify.verifying import EXIT_CODES, REPORT_FORMAT, UNREADABLE, Report, verify

_MARKS = {"PASSED": "ok", "FAILED": "FAILED", "NOT_CHECKED": "--"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 proved, 1 something fails or the whole is not proved, 2 not readable."""
    parser = argparse.ArgumentParser(
        prog="lockstep-verify", description="Check a plan's bundle of evidence offline (docs/bundle.md)."
    )
    parser.add_argument("bundle", type=Path, help="the bundle, lockstep/bundle/v1")
    parser.add_argument("--trust", type=Path, required=True, help="the keys and places that you trust, lockstep/trust/v1")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    given = parser.parse_args(arguments)
    report = verify_files(given.bundle, given.trust)
    sys.stdout.write(json.dumps(report, ensure_ascii=False, indent=2) + "\n" if given.json else text(report))
    return EXIT_CODES[report["verdict"]]


def verify_files(bundle: Path, trust: Path) -> Report:
    """The report about two files; one that cannot be read is reported as such."""
    octets = []
    for path in (bundle, trust):
        try:
            with path.open("rb") as file:
                octets.append(file.read(DOCUMENT_BYTES_MAX + 1))
        except OSError as error:
            message = f"cannot be read: {error.strerror}"
            return {"format": REPORT_FORMAT, "verdict": UNREADABLE, "place": str(path), "message": message}
    return verify(*octets)


def text(report: Report) -> str:
    """A report for people."""
    if report["verdict"] == UNREADABLE:
        return f"UNREADABLE: {report['place']} {report['message']}\n"
    lines = [f"plan     {report['plan_id']}", f"digest   {report['plan_digest']}", ""]
    for each in report["checks"]:
        note = f"  {each['note']}" if "note" in each else ""
        lines.append(f"{each['number']:>2} {each['name']:<20} {_MARKS[each['result']]}{note}")
        lines += [f"      {finding['place']} {finding['message']}" for finding in each.get("findings", ())]
    for title, name in (("proved", "proved"), ("not proved by any bundle", "not_proved")):
        lines += ["", f"{title}:", *(f"  - {each}" for each in report[name])]
    for each in report["messages"]:
        lines.append(
            f"  message  {each['leg_id']} {each.get('uetr', each.get('reference', ''))} {each['message_id']} {each['message_sha256']}"
        )
    return "\n".join([*lines, "", report["verdict"], ""])
