"""What fails is run once more, and only what passes then is forgiven, by name."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

STEADY = "def test_steady() -> None:\n    pass\n"
#: Fails as long as there is no file beside it, which it leaves.
UNSTEADY = """
from pathlib import Path

MARK = Path(__file__).with_suffix(".mark")

def test_unsteady() -> None:
    seen = MARK.exists()
    MARK.touch()
    assert seen
"""
BROKEN = (
    "import pytest\n\n@pytest.mark.parametrize('number', range({many}))\ndef test_broken(number: int) -> None:\n    assert False\n"
)
UNREADABLE = "import nothing_of_this_name\n"


def lanes(*folders: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools/lanes.py"), *map(str, folders)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def folder(tmp_path: Path, name: str, *texts: str) -> Path:
    made = tmp_path / name
    made.mkdir()
    # Keeps the repository's own configuration and plugins out of it.
    (made / "pytest.ini").write_text("[pytest]\n")
    for number, text in enumerate(texts):
        (made / f"test_{name}_{number}.py").write_text(text)
    return made


def test_what_passes_when_run_again_is_named_and_forgiven(tmp_path: Path) -> None:
    """Alone or beside another folder; what it printed first is seen all the same."""
    for number, others in enumerate([(), (folder(tmp_path, "beside", STEADY),)]):
        done = lanes(folder(tmp_path, f"some{number}", STEADY, UNSTEADY), *others)
        assert done.returncode == 0, done.stdout
        assert "assert seen" in done.stdout
        named = done.stdout[done.stdout.index("UNSTEADY") :]
        assert "test_unsteady" in named
        assert "test_steady" not in named


@pytest.mark.parametrize(
    ("text", "again"),
    [(BROKEN.format(many=1), True), (BROKEN.format(many=5), True), (BROKEN.format(many=6), False), (UNREADABLE, False)],
    ids=["twice", "five", "too-many", "unreadable"],
)
def test_what_fails_twice_fails(tmp_path: Path, text: str, again: bool) -> None:
    """Also beside one that passes then. What is more than a busy machine can have done is not run again."""
    done = lanes(folder(tmp_path, "some", STEADY, text, *([UNSTEADY] if again else [])))
    assert done.returncode == 1, done.stdout
    assert "UNSTEADY" not in done.stdout


def test_what_passes_is_run_once(tmp_path: Path) -> None:
    """Nothing is run again where nothing failed."""
    done = lanes(folder(tmp_path, "one", STEADY), folder(tmp_path, "two", STEADY))
    assert (done.returncode, done.stdout.count("1 passed"), done.stdout.count("ok")) == (0, 2, 2), done.stdout


def test_what_failed_is_shown_also_when_it_is_stopped(tmp_path: Path) -> None:
    """A run that takes too long is told to stop, and says what it knows by then."""
    begun = tmp_path / "begun"
    slow = f"import pathlib, time\n\ndef test_slow() -> None:\n    pathlib.Path({str(begun)!r}).touch()\n    time.sleep(600)\n"
    broken = folder(tmp_path, "broken", BROKEN.format(many=1))
    command = [sys.executable, str(ROOT / "tools/lanes.py"), str(folder(tmp_path, "slow", slow, STEADY * 50)), str(broken)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        # The line of the folder that failed.
        told = process.stdout.readline()
        give_up = time.monotonic() + 60
        while not begun.exists() and time.monotonic() < give_up:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        told += process.stdout.read()
    assert process.returncode == 1
    assert "FAILED" in told
    assert "test_broken" in told[told.index("----") :]
