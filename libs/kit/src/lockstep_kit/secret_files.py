"""Secrets in files that only their owner may read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lockstep_kit.fields import require


def read_secret_file(path: Path, octets_max: int, *, field: str = "") -> bytes:
    """What a secret's file holds, as far as `octets_max`; `field` names it in errors, its path where that is not given.

    Raises:
        FieldInvalid: it is no regular file, or others than its owner may read it.
        OSError: it cannot be read.
    """
    name = field or str(path)
    with path.open("rb") as file:
        # Of the file that was opened: the path may name another one by now.
        status = os.fstat(file.fileno())
        require(stat.S_ISREG(status.st_mode), name, "must be a regular file")
        require(not status.st_mode & 0o077, name, "must not be accessible to group or others (mode 0600)")
        return file.read(octets_max)
