"""The second model, in Promela, run by `spin` where it and a C compiler are installed: it must hold, and each of its own seeded bugs must be found."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MODEL: Final = Path(__file__).with_name("lockstep.pml")
SECONDS_MAX: Final = 120
DEPTH_MAX: Final = 100_000

#: What must hold: two legs and two take-overs, three legs and one; the decision written at once, and by a soft leg.
VERIFIED: Final = (
    ("LEGS=2",),
    ("LEGS=2", "DELEGATE"),
    ("LEGS=3", "EPOCHS=2", "DELEGATE"),
)
#: What must be found.
BUGS: Final = (
    ("LEGS=2", "BUG_EARLY_COMMIT"),
    ("LEGS=2", "BUG_NO_TOMBSTONE"),
    ("LEGS=2", "BUG_NO_EPOCH"),
    ("LEGS=2", "BUG_ABORT_AFTER_COMMIT"),
    ("LEGS=2", "BUG_OVERWRITE"),
    ("LEGS=2", "BUG_NO_ESCALATION"),
    ("LEGS=2", "BUG_LATE_PREPARE"),
    ("LEGS=2", "DELEGATE", "BUG_REFUSAL_RELEASES"),
    ("LEGS=2", "DELEGATE", "BUG_LATE_DELEGATED"),
    ("LEGS=2", "DELEGATE", "BUG_UNKNOWN_FAILED"),
    ("LEGS=2", "DELEGATE", "BUG_ALL_DELEGATED"),
)


@dataclass(frozen=True, slots=True)
class Verified:
    """What spin said of a model."""

    #: States that it stored.
    states: int
    #: Errors that it found.
    errors: int
    #: The first of them, or "".
    error: str
    #: How long compiling and searching took.
    seconds: float


def missing() -> str:
    """What the second model needs and is not installed, or ""."""
    return ", ".join(name for name in ("spin", "gcc") if shutil.which(name) is None)


def verify(macros: tuple[str, ...]) -> Verified:
    """What spin says of the model with these macros.

    Raises:
        RuntimeError: the model was not searched to its end.
    """
    began = time.perf_counter()
    optimise = "-O0" if any(each.startswith("BUG") for each in macros) else "-O1"
    with tempfile.TemporaryDirectory(prefix="lockstep-model-") as folder:
        _run(["spin", "-a", *(f"-D{each}" for each in macros), str(MODEL)], folder)
        _run(["gcc", "-w", "-DSAFETY", "-DVECTORSZ=2048", optimise, "-o", "pan", "pan.c"], folder)
        told = _run(["./pan", f"-m{DEPTH_MAX}", "-w22"], folder)
    errors, states = re.search(r"errors: (\d+)", told), re.search(r"^\s*(\d+) states, stored", told, re.MULTILINE)
    if errors is None or states is None or "max search depth too small" in told:
        raise RuntimeError(f"the model {' '.join(macros)} was not searched to its end:\n{told}")
    first = re.search(r"^pan:\d+: (.*)$", told, re.MULTILINE)
    return Verified(int(states[1]), int(errors[1]), first[1] if first else "", time.perf_counter() - began)


def _run(command: list[str], folder: str) -> str:
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    if run.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} exited with {run.returncode}:\n{run.stdout}{run.stderr}")
    return run.stdout
