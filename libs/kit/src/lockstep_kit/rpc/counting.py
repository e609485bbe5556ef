"""How many messages a batch holds, counted in its octets before anybody reads it as a message. Pure."""

from __future__ import annotations

from typing import Final

#: Key of the first field, where it holds messages: its number, and that its length stands before it.
_FIRST_FIELD: Final = 1 << 3 | 2
_MORE: Final = 0x80
#: A length that takes more octets is longer than any request.
_LENGTH_OCTETS_MAX: Final = 4


def count_messages(octets: bytes, most: int) -> int:
    """How often the first field stands in a message that has no other, up to `most`; `most` too where it is written in any other way than is usual.

    A reader takes fields in any order, and lengths with needless octets: whoever writes so is not believed to send little.
    """
    count, place, end = 0, 0, len(octets)
    while place < end and count < most:
        found = _behind_length(octets, place + 1) if octets[place] == _FIRST_FIELD else None
        if found is None or found > end:
            return most
        count, place = count + 1, found
    return count


def _behind_length(octets: bytes, place: int) -> int | None:
    """Where a field ends whose length stands at a place; None where no length stands there."""
    length = 0
    for shift, octet in enumerate(octets[place : place + _LENGTH_OCTETS_MAX]):
        length |= (octet & ~_MORE) << 7 * shift
        if octet < _MORE:
            return place + shift + 1 + length
    return None
