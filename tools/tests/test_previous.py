"""The release before is laid out where the history holds it; where it does not, that is said, and a wrong name is told from a missing past."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[1]
NO_HISTORY = 3
#: Whose settings git has must not matter.
ENVIRON = os.environ | {
    "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@localhost",
    "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@localhost",
}  # fmt: skip


def git(folder: Path, *arguments: str) -> str:
    ran = subprocess.run(["git", *arguments], cwd=folder, env=ENVIRON, check=True, capture_output=True, text=True)
    return ran.stdout.strip()


def commit(folder: Path, text: str) -> str:
    """Another revision of a package; its commit."""
    module = folder / "libs" / "one" / "src" / "one" / "__init__.py"
    module.parent.mkdir(parents=True, exist_ok=True)
    module.write_text(text)
    (folder / "libs" / "one" / "pyproject.toml").write_text("[project]\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "another")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with the tool and two revisions, of which the first is the release before."""
    folder = tmp_path / "tree"
    (folder / "tools" / "node_modules").mkdir(parents=True)
    (folder / ".schemas").mkdir()
    (folder / "tests" / "upgrades").mkdir(parents=True)
    for name in ("previous.py", "workspace.py"):
        shutil.copy(TOOLS / name, folder / "tools")
    git(folder, "init", "-q", "-b", "main")
    first = commit(folder, "RELEASE = 'before'\n")
    (folder / "tests" / "upgrades" / "previous").write_text(f"{first}\n")
    commit(folder, "RELEASE = 'this'\n")
    return folder


def lay_out(tree: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tools/previous.py", str(tree.parent / "laid-out")]
    return subprocess.run(command, cwd=tree, env=ENVIRON, check=False, capture_output=True, text=True)


def test_it_is_laid_out_and_comes_before_what_is_installed(tree: Path) -> None:
    """Its packages are found by what is printed, with what set-up has installed beside them."""
    told = lay_out(tree)
    assert told.returncode == 0, told.stderr
    environ = ENVIRON | {"PYTHONPATH": told.stdout.strip()}
    ran = subprocess.run(
        [sys.executable, "-c", "import one; print(one.RELEASE)"], env=environ, check=True, capture_output=True, text=True
    )
    assert ran.stdout == "before\n"
    assert (tree.parent / "laid-out" / "tools" / "node_modules").is_dir()


def test_an_export_has_no_past(tree: Path) -> None:
    """Without the history it says so, also within another repository, and lays nothing out."""
    shutil.rmtree(tree / ".git")
    git(tree.parent, "init", "-q")
    told = lay_out(tree)
    assert told.returncode == NO_HISTORY
    assert "is no clone" in told.stderr
    assert not (tree.parent / "laid-out").exists()


def test_a_shallow_clone_has_no_past(tree: Path) -> None:
    """Where the history is cut off it says so."""
    shallow = tree.parent / "shallow"
    git(tree.parent, "clone", "-q", "--depth=1", f"file://{tree}", str(shallow))
    told = lay_out(shallow)
    assert told.returncode == NO_HISTORY
    assert "shallow" in told.stderr


def test_a_commit_that_is_no_ancestor_is_refused(tree: Path) -> None:
    """With the whole history there, a name that is not in it is wrong: of another branch, or of nothing."""
    git(tree, "switch", "-q", "-c", "other")
    other = commit(tree, "RELEASE = 'other'\n")
    git(tree, "switch", "-q", "main")
    for name in (other, "0" * 40):
        (tree / "tests" / "upgrades" / "previous").write_text(name)
        told = lay_out(tree)
        assert told.returncode == 1
        assert "no ancestor" in told.stderr
