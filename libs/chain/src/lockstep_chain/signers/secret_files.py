"""Keystores, passwords and PINs in files that only their owner may read."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lockstep_kit.fields import FieldInvalid
from lockstep_kit.secret_files import read_secret_file

#: Keystores and passwords are far smaller.
FILE_BYTES_MAX: Final = 64 * 1024


def read_secret(field: str, path: Path) -> str:
    """What a secret's file holds, without the white space around it.

    Raises:
        FieldInvalid: the file cannot be read, or others than its owner may read it.
    """
    try:
        return read_secret_file(path, FILE_BYTES_MAX, field=field).decode().strip()
    except OSError as error:
        raise FieldInvalid(field, f"must be a readable file: {error.strerror}") from None
    except UnicodeDecodeError:
        raise FieldInvalid(field, "must hold text") from None
