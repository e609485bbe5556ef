"""Where set-up leaves the official ISO 20022 schemas."""

from __future__ import annotations

from pathlib import Path


def schemas() -> Path:
    """The folder of the official schemas, as set-up leaves it.

    Raises:
        FileNotFoundError: it is not there.
    """
    for folder in Path(__file__).parents:
        if (folder / ".schemas" / "xsd").is_dir():
            return folder / ".schemas" / "xsd"
    raise FileNotFoundError("the ISO 20022 schemas are not installed: run `make setup`")
