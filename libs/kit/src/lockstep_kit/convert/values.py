"""Values that every message holds: enums, times, counts, amounts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, Final, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from lockstep.type.v1 import amount_pb2
from lockstep_kit.amounts import Amount, amount_of
from lockstep_kit.fields import FieldInvalid, require

#: First second of the year 9999: what is added to a time stays one that can be written down.
_SECONDS_END: Final = 253_370_764_800
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_SECONDS: Final = 86_400
#: Canonical bytes hold integers of at most 53 bits.
_COUNT_END: Final = 2**53
#: Numbers by values, of each table that was asked.
_NUMBERS: Final[dict[int, tuple[object, dict[Any, Any]]]] = {}
_K = TypeVar("_K")
_V = TypeVar("_V")
_MessageT = TypeVar("_MessageT", bound=Message)
_Read = TypeVar("_Read")


def remembered(most: int) -> Callable[[Callable[[_MessageT], _Read]], Callable[[_MessageT], _Read]]:
    """Makes of what reads a message into a value that never changes the same that reads equal messages once, as far as so many are remembered.

    A refusal is not remembered.
    """

    def around(read: Callable[[_MessageT], _Read]) -> Callable[[_MessageT], _Read]:
        recent: dict[bytes, _Read] = {}
        before: dict[bytes, _Read] = {}

        @wraps(read)
        def look(message: _MessageT) -> _Read:
            nonlocal recent, before
            octets = message.SerializeToString(deterministic=True)
            if octets not in recent:
                recent[octets] = before[octets] if octets in before else read(message)
                if len(recent) > most // 2:
                    before, recent = recent, {}
                    return before[octets]
            return recent[octets]

        return look

    return around


def enum_from_pb(known: dict[_K, _V], value: _K, field: str) -> _V:
    """The domain's value of an enum; unspecified and unknown numbers are refused."""
    if value not in known:
        raise FieldInvalid(field, "must be one of the values that this version knows")
    return known[value]


def enum_to_pb(known: dict[_K, _V], value: _V) -> _K:
    """The protobuf number of a domain value."""
    if id(known) not in _NUMBERS:
        # The table is kept with it, so that no other has its place. The first of several numbers counts.
        _NUMBERS[id(known)] = (known, {each: number for number, each in reversed(known.items())})
    found: _K = _NUMBERS[id(known)][1][value]
    return found


def time_from_pb(message: Timestamp, field: str) -> datetime:
    """A moment in UTC, to the microsecond; finer parts are refused, since they would not survive the database."""
    if not 0 <= message.nanos < 1_000_000_000 or message.nanos % 1000:
        raise FieldInvalid(field, "must be a time with microseconds at the finest")
    require(0 <= message.seconds < _SECONDS_END, field, "must be a time of the years 1970 to 9998")
    return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)


def time_to_pb(moment: datetime) -> Timestamp:
    """A moment as a Timestamp."""
    # What FromDatetime does by way of a calendar, in a third of its time.
    since = moment - _EPOCH
    return Timestamp(seconds=since.days * _DAY_SECONDS + since.seconds, nanos=since.microseconds * 1000)


def count_from_pb(count: int, field: str) -> int:
    """A count or revision that canonical bytes can hold."""
    require(0 <= count < _COUNT_END, field, "must be 0 to 2^53 - 1")
    return count


def amount_from_pb(message: amount_pb2.Amount) -> Amount:
    """An amount, checked."""
    return amount_of(message.asset, message.minor_units, message.scale)


def amount_to_pb(amount: Amount) -> amount_pb2.Amount:
    """An amount as a message."""
    return amount_pb2.Amount(asset=amount.asset, minor_units=str(amount.minor_units), scale=amount.scale)
