"""Requests by their ids, and places in lists as opaque tokens: what every servicer of the coordinator shares. Pure."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.message import Message

from coordinator.settlement import Request
from lockstep_kit import ids
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import sha256

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_NUMBER_LENGTH_MAX: Final = 18


def octets_of(message: Message) -> bytes:
    """A message, the same bytes each time."""
    return message.SerializeToString(deterministic=True)


def request_of(method: str, request_id: str, message: Message) -> Request:
    """A request by its id, method and content.

    Raises:
        FieldInvalid: the id has another form.
    """
    return Request(ids.request_id(request_id), method, sha256(method.encode("ascii") + b"\n" + octets_of(message)))


def number_token(kind: str, number: int) -> str:
    """A place that is a number."""
    return _token(kind, str(number))


def number_place(kind: str, token: str) -> int:
    """The number in a page token.

    Raises:
        FieldInvalid: no token of such a list.
    """
    return _count(_place(kind, token))


def time_token(kind: str, moment: datetime, name: str) -> str:
    """A place that is a time, with a name among what has the same time."""
    return _token(kind, f"{(moment - _EPOCH) // _MICROSECOND}:{name}")


def time_place(kind: str, token: str) -> tuple[datetime, str]:
    """The time and name in a page token.

    Raises:
        FieldInvalid: no token of such a list.
    """
    count, _, name = _place(kind, token).partition(":")
    return _EPOCH + _count(count) * _MICROSECOND, name


def _token(kind: str, place: str) -> str:
    return base64.urlsafe_b64encode(f"{kind}:{place}".encode()).decode("ascii")


def _place(kind: str, token: str) -> str:
    try:
        text = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        text = ""
    prefix, _, place = text.partition(":")
    if prefix != kind:
        raise _no_token()
    return place


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > _NUMBER_LENGTH_MAX:
        raise _no_token()
    return int(text)


def _no_token() -> FieldInvalid:
    return FieldInvalid("page_token", "must be the token of a response of this method")
