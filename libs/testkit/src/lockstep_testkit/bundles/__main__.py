"""Writes the verifiers' vectors, or says which are stale.

python -m lockstep_testkit.bundles FOLDER             writes them: FOLDER/NAME/{bundle,trust,report}.json
python -m lockstep_testkit.bundles FOLDER --check     prints one line for each that differs; exits 1 if one does
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from lockstep_testkit.bundles.vectors import Vector, vectors
from lockstep_verify.verifying import Report, verify


def unexpected(vector: Vector, report: Report) -> str:
    """How a report differs from what the vector was made for; "" where it does not."""
    if report["verdict"] != vector.verdict:
        return f"{vector.name}: {report['verdict']}, and not {vector.verdict}"
    if vector.verdict == "UNREADABLE":
        found: tuple[str, ...] = (report["place"],)
    else:
        wanted = "NOT_CHECKED" if vector.verdict == "PROVED" else "FAILED"
        found = tuple(each["name"] for each in report["checks"] if each["result"] == wanted)
    return "" if set(found) == set(vector.expects) else f"{vector.name}: {sorted(found)}, and not {sorted(vector.expects)}"


def main() -> int:
    """Returns the exit code."""
    folder, check, wrong = Path(sys.argv[1]), "--check" in sys.argv[2:], []
    fresh: dict[Path, bytes] = {}
    for vector in vectors():
        report = verify(vector.bundle, vector.trust)
        wrong.append(unexpected(vector, report))
        written = json.dumps(report, ensure_ascii=False, indent=1).encode() + b"\n"
        files = {"bundle": vector.bundle, "trust": vector.trust, "report": written}
        fresh |= {folder / vector.name / f"{name}.json": octets for name, octets in files.items()}
    there = {path: path.read_bytes() for path in folder.glob("*/*.json")}
    if check:
        stale = sorted(path for path in there.keys() | fresh.keys() if there.get(path) != fresh.get(path))
        wrong += [f"{path} is not what would be generated: run `make vectors`" for path in stale]
    else:
        shutil.rmtree(folder, ignore_errors=True)
        for path, octets in fresh.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(octets)
    for line in filter(None, wrong):
        sys.stdout.write(f"{line}\n")
    return 1 if any(wrong) else 0


if __name__ == "__main__":
    sys.exit(main())
