"""A batch is counted in its octets as it would be read."""

from __future__ import annotations

import random

import pytest

from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep_kit.rpc.counting import count_messages

MOST = 256


def batch(*sizes: int) -> bytes:
    requests = [messages.SignGateRequest(request_id="x" * size) for size in sizes]
    return messages.SignGatesRequest(requests=requests).SerializeToString()


def test_as_many_as_are_read() -> None:
    """Of what is written as usual exactly what a reader finds, whatever the sizes; never more than the most."""
    rng = random.Random(7)
    for _ in range(200):
        sizes = [rng.choice((0, 1, 100, 127, 128, 16_383, 20_000)) for _ in range(rng.randrange(12))]
        assert count_messages(batch(*sizes), MOST) == len(sizes)
    assert count_messages(batch(*[0] * 300), MOST) == MOST


@pytest.mark.parametrize(
    "odd",
    [
        b"\x7a\x01x" + batch(1, 1, 1),  # another field first
        b"\x8a\x00\x02\x0a\x00" + batch(1),  # a key with a needless octet
        batch(1) + b"\x10\x01" + batch(1, 1),  # a number in between
        b"\x0a\x82\x80\x80\x80\x00\x0a\x00" + batch(1),  # a length with needless octets
        batch(5)[:-1],  # cut off
        b"\x0a",
        b"\x0a\xff\xff\xff\x7f",
        b"\x0b\x0a\x00\x0c" + batch(1),  # a group
    ],
)
def test_what_is_written_otherwise_counts_as_full(odd: bytes) -> None:
    """Nobody sends much for little by writing it in another way."""
    assert count_messages(odd, MOST) == MOST


def test_chance_never_counts_less_than_is_read() -> None:
    """Whatever the octets are: if a reader takes them, it finds no more requests than were counted."""
    rng = random.Random(11)
    taken = 0
    for _ in range(20_000):
        octets = bytearray(batch(*[rng.randrange(4) for _ in range(rng.randrange(5))]))
        for _ in range(rng.randrange(3)):
            octets.insert(
                rng.randrange(len(octets) + 1), rng.choice((0x00, 0x0A, 0x0B, 0x0C, 0x10, 0x7A, 0x80, 0x81, rng.randrange(256)))
            )
        try:
            found = len(messages.SignGatesRequest.FromString(bytes(octets)).requests)
        except Exception:  # noqa: BLE001 - no message
            continue
        taken += 1
        assert found <= count_messages(bytes(octets), MOST)
    assert taken > 1_000
