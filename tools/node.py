"""Runs node or npm: the machine's, where it is recent enough, otherwise those of the environment (from a wheel).

    tools/node.py node SCRIPT [ARGUMENT…]
    tools/node.py npm ARGUMENT…

Standard library only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from workspace import ROOT, VENV

#: The oldest major version that every locked package takes; npm leaves out optional ones that do not.
NODE_MAJOR_MIN = 24


def find(program: str) -> list[str]:
    """The command that starts `node` or `npm`.

    Raises:
        FileNotFoundError: The machine has none that is recent enough, and the environment is not set up yet.
    """
    if machine_has_node():
        return [program]
    own = VENV / "bin" / program
    if own.exists():
        return [str(own)]
    message = f"{program}: neither on this machine (version {NODE_MAJOR_MIN} or newer) nor in {own.relative_to(ROOT)}"
    raise FileNotFoundError(message)


def machine_has_node() -> bool:
    """Whether both node and npm of the machine can be used."""
    if not (shutil.which("node") and shutil.which("npm")):
        return False
    try:
        answer = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True, timeout=20).stdout
        return int(answer.strip().lstrip("v").split(".")[0]) >= NODE_MAJOR_MIN
    except (OSError, subprocess.SubprocessError, ValueError):
        return False


if __name__ == "__main__":
    command = find(sys.argv[1])
    os.execvp(command[0], [*command, *sys.argv[2:]])
