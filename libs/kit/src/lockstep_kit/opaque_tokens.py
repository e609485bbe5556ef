"""Places in lists and streams as tokens: opaque to whoever carries them (AIP-158), read again by the service that gave them. Pure.

A token is a kind and a place in the alphabet of URLs (RFC 4648, 5). What comes back is anybody's: only what could have been given is a place.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from lockstep_kit.fields import FieldInvalid

#: Places that are numbers fit the database's.
DIGITS_MAX: Final = 18


def token_of(kind: str, place: str) -> str:
    """A place in a list of a kind. Both are ASCII."""
    return base64.urlsafe_b64encode(f"{kind}{place}".encode("ascii")).decode("ascii")


def place_in(token: str, kind: str, field: str = "page_token") -> str:
    """The place that a token of a kind holds.

    Raises:
        FieldInvalid: no such token.
    """
    try:
        text = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, UnicodeError):
        text = ""
    if not text.startswith(kind):
        raise no_token(field)
    return text.removeprefix(kind)


def number_in(place: str, field: str = "page_token") -> int:
    """A place that is a number: 0 or more, and no longer than DIGITS_MAX.

    Raises:
        FieldInvalid: something else.
    """
    if not place.isascii() or not place.isdigit() or len(place) > DIGITS_MAX:
        raise no_token(field)
    return int(place)


def no_token(field: str = "page_token") -> FieldInvalid:
    """The refusal of a token that is of no use here."""
    return FieldInvalid(field, "must be the token of a response of this method")
