"""The page's own files, read once when the process starts, each with the hash by which a browser asks whether it has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "static"
PAGE: Final = "index.html"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the page."""

    #: What it holds.
    octets: bytes
    #: Its media type.
    content_type: str
    #: Strong entity tag, quoted (RFC 9110, section 8.8.3).
    etag: str


def read_assets() -> Mapping[str, Asset]:
    """The files by name. A file of another kind is not served."""
    found = {}
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in _TYPES:
            octets = path.read_bytes()
            found[path.name] = Asset(octets, _TYPES[path.suffix], f'"{hashlib.sha256(octets).hexdigest()[:32]}"')
    return found
