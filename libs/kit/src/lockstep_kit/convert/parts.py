"""Messages put together from the bytes of their parts, each written with its tag and its length, as protobuf's encoding has it.

What is shown again and again is not made into messages, copied into others and written anew: fields may come in any order, and what is written one
after another is one message. The bytes are the same each time, and whoever reads them reads what the message itself would have been.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

#: Writes a field, given its value's bytes.
Part: TypeAlias = Callable[[bytes], bytes]

_MESSAGE_WIRE_TYPE: Final = 2
_NUMBER_WIRE_TYPE: Final = 0
_OCTETS: Final = (FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_STRING)
_NUMBERS: Final = (
    FieldDescriptor.TYPE_ENUM,
    FieldDescriptor.TYPE_BOOL,
    FieldDescriptor.TYPE_INT32,
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT32,
    FieldDescriptor.TYPE_UINT64,
)


def varint(number: int) -> bytes:
    """A number, 0 or more, seven bits to an octet, the lowest first (Protocol Buffers, "Base 128 Varints")."""
    octets = bytearray()
    while number > 0x7F:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    octets.append(number)
    return bytes(octets)


#: Numbers as they are written: nearly every length is one of these.
_SHORT: Final = tuple(map(varint, range(4_096)))


def _written(number: int) -> bytes:
    return _SHORT[number] if number < len(_SHORT) else varint(number)


def part(message: type[Message], name: str) -> Part:
    """How a field is written that holds messages, bytes or text. A field that holds several is written once for each.

    Raises:
        ValueError: the message has no such field.
    """
    tag = _tag(message, name, _OCTETS, _MESSAGE_WIRE_TYPE)
    return lambda octets: tag + _written(len(octets)) + octets


def number(message: type[Message], name: str) -> Callable[[int], bytes]:
    """How a field is written that holds a number of at least 0, an enum's value or a truth; its default is not written.

    Raises:
        ValueError: the message has no such field.
    """
    tag = _tag(message, name, _NUMBERS, _NUMBER_WIRE_TYPE)
    return lambda value: tag + _written(value) if value else b""


def _tag(message: type[Message], name: str, types: tuple[int, ...], wire_type: int) -> bytes:
    field = message.DESCRIPTOR.fields_by_name.get(name)
    if field is None or field.type not in types:
        raise ValueError(f"{message.DESCRIPTOR.full_name} has no field {name} that is written so")
    return varint(field.number << 3 | wire_type)
