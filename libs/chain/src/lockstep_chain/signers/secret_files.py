"""Secrets in files that only their owner may read."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from lockstep_kit.fields import FieldInvalid, require

#: Keystores and passwords are far smaller.
FILE_BYTES_MAX: Final = 64 * 1024


def read_secret(field: str, path: Path) -> str:
    """What a secret's file holds, without the white space around it.

    Raises:
        FieldInvalid: the file cannot be read, or others than its owner may read it.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            require(stat.S_ISREG(status.st_mode), field, "must be a regular file")
            require(status.st_mode & 0o077 == 0, field, "must be readable by its owner only (mode 0600)")
            return file.read(FILE_BYTES_MAX).decode().strip()
    except OSError as error:
        raise FieldInvalid(field, f"must be a readable file: {error.strerror}") from None
    except UnicodeDecodeError:
        raise FieldInvalid(field, "must hold text") from None
