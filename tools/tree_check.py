"""Refuses what the tree must not hold: registries' hosts, machines' paths, private keys, overlong modules, stray files.

    tools/tree_check.py         prints one line for each finding; exits 1 if there is one

Looks at the files that git would commit; without git, at everything outside the folders that tools make.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

from workspace import ROOT, packages

#: A module fits in one's head: 50 to 400 lines is the aim, and this is where it is said aloud.
MODULE_LINES_MAX = 450
#: Tests are lists of cases, and may be longer.
TEST_LINES_MAX = 700
FILE_BYTES_MAX = 1_500_000

MADE_BY_TOOLS = frozenset(
    {
        ".git",
        ".venv",
        ".schemas",
        ".softhsm",
        ".prometheus",
        ".chromium",
        ".sandbox",
        "node_modules",
        "__pycache__",
        "build",
        "dist",
        "out",
    }
)
#: Not written by people: no limit on length.
GENERATED = ("protos/gen/", "contracts/artifacts/")

FORBIDDEN_NAMES = re.compile(
    r"(^|/)(uv\.lock|poetry\.lock|\.env|\.DS_Store|bom\.json|sbom\.json|[^/]+\.(pyc|pem|key|p12|log|sqlite|db|orig|rej|swp|cdx\.json))$"
)
FORBIDDEN_TEXT = {
    "names a package registry's host": re.compile(r"https?://[^\s\"'<>]*(pypi|pythonhosted|npmjs|registry|deb\.debian)"),
    "names a machine's path": re.compile(r"(^|[^A-Za-z0-9_./{}-])/(work|farm|root|Users|home/[a-z][a-z0-9]*)/"),
    "holds a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s*\n[A-Za-z0-9+/]"),
    "has a merge conflict": re.compile(r"^(<{7}|>{7}) ", re.MULTILINE),
}
UNFINISHED = re.compile(r"\bNotImplementedError\b|\bFIXME\b|\bXXX\b|\bTODO\b")
URL_IN_LOCK = re.compile(r'"resolved"|(--index|--extra-index|--find-links)|@ (https?|file)://')


def main() -> int:
    """Prints the findings; returns 1 if there is one."""
    findings = sorted(finding for name in tree() for finding in look_at(name)) + list(untyped_packages())
    for finding in findings:
        print(finding)
    return 1 if findings else 0


def tree() -> list[str]:
    """Paths of the files that belong to the tree, relative to its root."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout.split("\0")  # fmt: skip
        return [name for name in listed if name and (ROOT / name).is_file()]
    except (OSError, subprocess.CalledProcessError):
        found = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
        return [str(path) for path in found if not any(part in MADE_BY_TOOLS or part.endswith("_cache") for part in path.parts)]


def look_at(name: str) -> Iterator[str]:
    """The findings in one file."""
    path = ROOT / name
    if FORBIDDEN_NAMES.search(name):
        yield f"{name}: does not belong under version control"
    if path.stat().st_size > FILE_BYTES_MAX:
        yield f"{name}: larger than {FILE_BYTES_MAX} bytes"
        return
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        return
    for sentence, pattern in FORBIDDEN_TEXT.items():
        for match in pattern.finditer(text):
            yield f"{name}:{line_of(text, match)}: {sentence}"
    if name.endswith((".lock", "package-lock.json")) and (found := URL_IN_LOCK.search(text)):
        yield f"{name}:{line_of(text, found)}: a lock file names where a package was found"
    if name.endswith(".py") and not name.startswith(GENERATED):
        yield from look_at_module(name, text)


def look_at_module(name: str, text: str) -> Iterator[str]:
    """The findings in a module that people wrote."""
    is_test = "/tests/" in f"/{name}"
    lines, limit = text.count("\n"), TEST_LINES_MAX if is_test else MODULE_LINES_MAX
    if lines > limit:
        yield f"{name}: {lines} lines; a module has at most {limit}"
    if "/src/" in name and (match := UNFINISHED.search(text)):
        yield f"{name}:{line_of(text, match)}: unfinished"


def untyped_packages() -> Iterator[str]:
    """Packages without the marker that makes their types visible to others."""
    for package in packages():
        for module in package.modules:
            if not (package.source / module / "py.typed").is_file():
                yield f"{(package.source / module).relative_to(ROOT)}: has no py.typed"


def line_of(text: str, match: re.Match[str]) -> int:
    """The line on which a match begins."""
    return text.count("\n", 0, match.start() + 1) + 1


if __name__ == "__main__":
    sys.exit(main())
