"""Requests from a seed: made of what was seen, then spoilt, as messages and as bytes. Pure: the same seed, number and corpus give the same call."""

from __future__ import annotations

import base64
import random
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from fuzz.corpus import Corpus
from lockstep_kit.convert.parts import varint

DEPTH_MAX: Final = 6
#: Sizes of what is too large: mostly what fits into a message, seldom what does not.
SIZES: Final = (300, 5_000, 70_000, 300_000)
OVERSIZED_BYTES: Final = 5 << 20
REPEATS: Final = (2, 70, 600)
NESTINGS: Final = (50, 150, 2_000)

#: Text that people and programs have been fooled by.
TEXTS: Final = (
    "", " ", "\x00", "a\x00b", "\ufeff", "\u202egnp.exe", "\u200bplan", "\u0430pprover", "maker\u0301", "\U0001f4b6", "\uffff", "\ud7ff\ue000",
    "NaN", "Infinity", "-0", "1e308", "-1", "0x10", "00", "1_000", "\u0661\u0662", "9" * 79, "9" * 400, "../../etc/passwd", "%00", "%s%n", "${7*7}",
    "' or 1=1 --", '"; drop table plan; --', "*", "a/b", "a\r\nb", "\x1b[2J", "0" * 36, "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-4fff-bfff-ffffffffffff", "EUR", "eip155:138/erc20:0x" + "00" * 20, "0x" + "ff" * 20, "AAAA",
    "bGVncy8xLy0x", "bGVncy8xLzk5OTk5OTk5OTk5OTk5OTk5OTk5", "1999-13-45", "9999-12-31", "0001-01-01", "A/\x00", "\x00/b",
)  # fmt: skip
_INTEGERS: Final = (0, 1, -1, 2, 127, 255, 65_535, 2**31 - 1, -(2**31), 2**32 - 1, 2**53, 2**63 - 1, -(2**63), 2**64 - 1)
_FLOATS: Final = (0.0, -0.0, float("nan"), float("inf"), float("-inf"), -1.0, 1e308, 5e-324)
#: Seconds of times and durations: the bounds of what protobuf, Python and Postgres know, and what lies beyond.
_SECONDS: Final = (
    0,
    -1,
    1,
    253_402_300_799,
    253_402_300_800,
    -62_135_596_800,
    -62_135_596_801,
    2**63 - 1,
    -(2**63),
    315_576_000_001,
    9_224_318_015_999,
)
_NANOS: Final = (0, 1, 999, 999_999_999, 1_000_000_000, -1, 2**31 - 1, -(2**31))
_BOUNDS: Final = {1: (-(2**31), 2**31 - 1), 2: (-(2**63), 2**63 - 1), 3: (0, 2**32 - 1), 4: (0, 2**64 - 1)}


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent."""

    #: The message's bytes.
    octets: bytes
    #: What was done to it, in order.
    story: tuple[str, ...]


def make(rng: random.Random, request: Any, corpus: Corpus) -> Request:
    """A request of a type: now and then only bytes, mostly a message that might be meant, with nothing to some things wrong."""
    roll = rng.random()
    if roll < 0.02:
        return Request(b"", ("empty",))
    if roll < 0.05:
        return Request(rng.randbytes(rng.choice((1, 2, 16, 200, 4_000))), ("random bytes",))
    if roll < 0.051:
        return Request(bytes(OVERSIZED_BYTES), ("oversized",))
    message = build(rng, request, corpus)
    story = []
    for _ in range(rng.choices((0, 1, 2, 4), (5, 8, 3, 1))[0]):
        story.append(spoil(rng, message, corpus))
    octets = _serialised(message)
    for _ in range(rng.choices((0, 1, 2), (20, 4, 1))[0]):
        name, spoiler = rng.choice(_BYTES)
        octets = spoiler(rng, octets)
        story.append(name)
    return Request(octets, tuple(story))


# -- Messages ----------------------------------------------------------------------------------------------------------


def build(rng: random.Random, described: Any, corpus: Corpus, depth: int = 0) -> Message:
    """A message of a type: one that was seen, or one put together from parts that were."""
    seen = corpus.messages.get(described.full_name, ())
    message = GetMessageClass(described)()
    if seen and rng.random() < 0.7:
        message.MergeFromString(rng.choice(seen))
        if "request_id" in described.fields_by_name and rng.random() < 0.7:
            _put(message, described.fields_by_name["request_id"], str(uuid.UUID(int=rng.getrandbits(128), version=4)))
        return message
    chosen = {oneof.name: rng.choice(oneof.fields).name for oneof in described.oneofs}
    for each in described.fields:
        oneof = each.containing_oneof
        if (oneof is not None and chosen[oneof.name] != each.name) or rng.random() < 0.03:
            continue
        _fill(rng, message, each, corpus, depth)
    return message


def _fill(rng: random.Random, message: Message, described: Any, corpus: Corpus, depth: int) -> None:
    count = rng.choice((1, 1, 2, 3)) if described.is_repeated else 1
    for _ in range(count):
        if described.message_type is not None:
            if described.message_type.GetOptions().map_entry or depth >= DEPTH_MAX:
                continue
            part = build(rng, described.message_type, corpus, depth + 1)
            if described.is_repeated:
                getattr(message, described.name).add().CopyFrom(part)
            else:
                getattr(message, described.name).CopyFrom(part)
            continue
        _put(message, described, _value(rng, described, corpus, odd=0.02))


def _put(message: Message, described: Any, value: Any) -> None:
    if described.is_repeated:
        getattr(message, described.name).append(value)
    else:
        setattr(message, described.name, value)


def _value(rng: random.Random, described: Any, corpus: Corpus, *, odd: float) -> Any:
    """A value of a field: seen before, or odd. Request ids are mostly fresh: one that was used is refused before anything else is looked at."""
    if described.name == "request_id" and rng.random() < 0.7:
        return str(uuid.UUID(int=rng.getrandbits(128), version=4))
    seen = corpus.of_field(described)
    if seen and rng.random() > odd:
        return rng.choice(seen)
    match described.type:
        case described.TYPE_BOOL:
            return rng.random() < 0.5
        case described.TYPE_ENUM:
            numbers = [each.number for each in described.enum_type.values]
            return rng.choice((*numbers, 99, -1, 2**31 - 1))
        case described.TYPE_STRING if described.name.endswith("_token") and seen and rng.random() < 0.7:
            return _token(rng, rng.choice(seen))
        case described.TYPE_STRING:
            return _text(rng)
        case described.TYPE_BYTES:
            return _octets(rng, seen)
        case described.TYPE_DOUBLE | described.TYPE_FLOAT:
            return rng.choice(_FLOATS)
    least, most = _BOUNDS[described.cpp_type]
    choices: Sequence[int] = _INTEGERS
    if described.containing_type.full_name in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
        choices = _SECONDS if described.name == "seconds" else _NANOS
    return min(max(rng.choice(choices), least), most)


def _text(rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.1:
        return rng.choice("aé€\x00") * rng.choice(SIZES)
    if roll < 0.2:
        return f"{rng.getrandbits(128):032x}"
    return rng.choice(TEXTS)


def _token(rng: random.Random, seen: str) -> str:
    """A token that was seen, opened, with another place in it."""
    try:
        inside = base64.urlsafe_b64decode(seen).decode("ascii")
    except ValueError:
        return seen[::-1]
    parts = re.split(r"([:/])", inside)
    place = rng.randrange(0, len(parts), 2)
    parts[place] = rng.choice(("", "0", "-1", "9" * 18, "9" * 19, "1e3", "\x00", "a\x00b", parts[place] + "0", "x" * 300))
    return base64.urlsafe_b64encode("".join(parts).encode()).decode()


def _octets(rng: random.Random, seen: Sequence[bytes]) -> bytes:
    if seen and rng.random() < 0.5:
        octets = bytearray(rng.choice(seen))
        if octets:
            octets[rng.randrange(len(octets))] ^= 1 << rng.randrange(8)
        return bytes(octets)
    return rng.randbytes(rng.choice((0, 1, 16, 31, 32, 33, 63, 64, 65, 66, 1_000, *SIZES)))


# -- Spoiling messages -------------------------------------------------------------------------------------------------


def spoil(rng: random.Random, message: Message, corpus: Corpus) -> str:
    """Spoil one place of a message, somewhere in it; what was done."""
    place = rng.choice(_places(message))
    fields: Sequence[Any] = place.DESCRIPTOR.fields
    described = rng.choice(fields) if fields else None
    if described is None:
        return "nothing to spoil"
    name = f"{place.DESCRIPTOR.name}.{described.name}"
    roll = rng.random()
    if roll < 0.2:
        place.ClearField(described.name)
        return f"{name} missing"
    if described.is_repeated:
        return _spoil_repeated(rng, place, described, corpus, name)
    if described.message_type is not None:
        getattr(place, described.name).CopyFrom(build(rng, described.message_type, corpus, DEPTH_MAX - 1))
        return f"{name} other"
    odd = 0.3 if roll < 0.6 else 1.0
    setattr(place, described.name, _value(rng, described, corpus, odd=odd))
    return f"{name} {'forged' if odd < 1 else 'odd'}"


def _spoil_repeated(rng: random.Random, place: Message, described: Any, corpus: Corpus, name: str) -> str:
    several = getattr(place, described.name)
    if described.message_type is not None and described.message_type.GetOptions().map_entry:
        place.ClearField(described.name)
        return f"{name} missing"
    if not several or rng.random() < 0.3:
        _fill(rng, place, described, corpus, DEPTH_MAX - 1)
        return f"{name} one more"
    if rng.random() < 0.3:
        del several[rng.randrange(len(several))]
        return f"{name} one fewer"
    one = several[rng.randrange(len(several))]
    times = rng.choice(REPEATS)
    if isinstance(one, Message):
        if one.ByteSize() * times > SIZES[-1]:
            times = 2
        octets = one.SerializeToString()
        for _ in range(times):
            several.add().MergeFromString(octets)
    else:
        several.extend([one] * times)
    return f"{name} {times} more"


def _places(message: Message) -> list[Message]:
    """The message, and every message in it; those that are deep inside are as likely as the one at the top."""
    found = [message]
    for described, value in message.ListFields():
        if described.message_type is not None and not described.message_type.GetOptions().map_entry:
            for each in list(value)[:4] if described.is_repeated else (value,):
                found.extend(_places(each))
    return found


def _serialised(message: Message) -> bytes:
    try:
        return message.SerializeToString(deterministic=True)
    except (ValueError, DecodeError):
        return b""


# -- Spoiling bytes ----------------------------------------------------------------------------------------------------


def _tag(field: int, wire: int) -> bytes:
    return varint(field << 3 | wire)


def _truncated(rng: random.Random, octets: bytes) -> bytes:
    return octets[: rng.randrange(len(octets))] if octets else b"\x0a"


def _flipped(rng: random.Random, octets: bytes) -> bytes:
    changed = bytearray(octets or b"\x00")
    for _ in range(rng.choice((1, 1, 3, 20))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _wrong_wire(rng: random.Random, octets: bytes) -> bytes:
    field, wire = rng.randint(1, 8), rng.choice((0, 1, 2, 3, 4, 5, 6, 7))
    return octets + _tag(field, wire) + rng.randbytes(rng.choice((0, 1, 4, 8, 12)))


def _unknown(rng: random.Random, octets: bytes) -> bytes:
    content = rng.randbytes(rng.choice((0, 8, 3_000)))
    return octets + _tag(rng.choice((1_000, 19_000, 2**29 - 1)), 2) + varint(len(content)) + content


def _deep(rng: random.Random, octets: bytes) -> bytes:
    field, depth = rng.randint(1, 6), rng.choice(NESTINGS)
    inside = b""
    for _ in range(depth):
        inside = _tag(field, 2) + varint(len(inside)) + inside
        if len(inside) > SIZES[-1]:
            break
    return octets + inside


def _groups(rng: random.Random, octets: bytes) -> bytes:
    depth = rng.choice(NESTINGS)
    return octets + _tag(1_001, 3) * depth + _tag(1_001, 4) * depth


def _bad_text(rng: random.Random, octets: bytes) -> bytes:
    bad = rng.choice((b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\x80", b"\xf8\x88\x80\x80\x80", b"\xe2\x82"))
    return octets + _tag(rng.randint(1, 4), 2) + varint(len(bad)) + bad


def _overlong(rng: random.Random, octets: bytes) -> bytes:
    return octets + _tag(rng.randint(1, 4), 2) + varint(rng.choice((2**31 - 1, 2**32, 2**63, 10_000_000)))


def _huge_varint(rng: random.Random, octets: bytes) -> bytes:
    return octets + _tag(rng.randint(1, 6), 0) + b"\xff" * rng.choice((9, 10, 30)) + b"\x01"


def _twice(rng: random.Random, octets: bytes) -> bytes:
    del rng
    return octets + octets if len(octets) < SIZES[-1] else octets


_BYTES: Final[Sequence[tuple[str, Callable[[random.Random, bytes], bytes]]]] = (
    ("truncated", _truncated),
    ("bits flipped", _flipped),
    ("wrong wire type", _wrong_wire),
    ("unknown field", _unknown),
    ("deep nesting", _deep),
    ("deep groups", _groups),
    ("bad UTF-8", _bad_text),
    ("overlong", _overlong),
    ("huge varint", _huge_varint),
    ("twice", _twice),
)
