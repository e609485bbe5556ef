"""Lays out the release before this tree, from the clone's own history, so that its code can be run beside this tree's.

    tools/previous.py FOLDER

`tests/upgrades/previous` names its commit. FOLDER, which must not be there yet, gets its tree, and links to what `make setup` has installed here. Printed is
the import path of its packages, as PYTHONPATH takes it: they come before this tree's, which are installed editable.

Exits 0 if it lies there; 3 where this copy of the repository has no history that reaches so far, as an export or a shallow clone, with the reason on standard
error; 1 where there is history and the commit is not in it: then the file is wrong.
"""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
from pathlib import Path

from workspace import ROOT, packages

NAMED = ROOT / "tests" / "upgrades" / "previous"
#: What `make setup` installs, and no commit holds.
INSTALLED = (".schemas", "tools/node_modules")
GIT_SECONDS_MAX = 120
NO_HISTORY = 3


class NoHistoryError(Exception):
    """This copy of the repository does not know its past; the message says why."""


class WrongCommitError(Exception):
    """The commit that is named is no release before this tree."""


def main() -> int:
    """Lays it out in the folder of the command line; returns the exit code."""
    folder = Path(sys.argv[1])
    commit = NAMED.read_text().strip()
    try:
        require_ancestor(commit)
    except NoHistoryError as error:
        print(f"the release before, {commit}, is not there: {error}", file=sys.stderr)
        return NO_HISTORY
    except WrongCommitError as error:
        print(f"{NAMED.relative_to(ROOT)}: {error}", file=sys.stderr)
        return 1
    lay_out(commit, folder)
    print(os.pathsep.join(str(package.source) for package in packages(folder)))
    return 0


def require_ancestor(commit: str) -> None:
    """Passes where a commit is in the history of what is checked out.

    Raises:
        NoHistoryError: there is none, or it is cut off.
        WrongCommitError: there is all of it, without this commit.
    """
    try:
        top = git("rev-parse", "--show-toplevel")
    except FileNotFoundError:
        raise NoHistoryError("git is not installed") from None
    if top.returncode != 0:
        raise NoHistoryError(f"git says: {top.stderr.decode(errors='replace').strip()}")
    # An export may lie within another repository.
    if Path(os.fsdecode(top.stdout.removesuffix(b"\n"))).resolve() != ROOT:
        raise NoHistoryError("this folder is no clone")
    if git("merge-base", "--is-ancestor", f"{commit}^{{commit}}", "HEAD").returncode == 0:
        return
    if git("rev-parse", "--is-shallow-repository").stdout.strip() == b"true":
        raise NoHistoryError("this is a shallow clone")
    raise WrongCommitError(f"{commit} is no ancestor of what is checked out")


def lay_out(commit: str, folder: Path) -> None:
    """A commit's tree in a new folder, compiled, with links to what is installed here.

    Raises:
        FileExistsError: the folder is there.
        subprocess.CalledProcessError: git cannot give it out.
    """
    folder.mkdir(parents=True)
    archive = folder / "archive.tar"
    git("archive", f"--output={archive}", commit).check_returncode()
    shutil.unpack_archive(archive, folder)
    archive.unlink()
    for name in INSTALLED:
        (folder / name).symlink_to(ROOT / name, target_is_directory=True)
    # Its processes start at the same time: they would all compile.
    compileall.compile_dir(folder, quiet=2)


def git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Asks git about this tree, whoever owns its files.

    Raises:
        FileNotFoundError: git is not installed.
    """
    command = ["git", "-c", f"safe.directory={ROOT}", *arguments]
    return subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=GIT_SECONDS_MAX)


if __name__ == "__main__":
    sys.exit(main())
