"""Files that outlive a loss of power, whole or as they were before."""

from __future__ import annotations

import os
from pathlib import Path


def write_durably(path: Path, octets: bytes, *, mode: int) -> None:
    """Put octets in the place of a file, or where none was: it has all of them or is as before, whenever the power goes (fsync(2), also of the folder).

    Raises:
        OSError: they could not be written.
    """
    beside = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
