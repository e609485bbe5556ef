"""Messages that are read once: what is remembered is what would be read, and what is refused is refused each time."""

from __future__ import annotations

import pytest

from lockstep.type.v1 import amount_pb2
from lockstep_kit.amounts import Amount
from lockstep_kit.convert.values import amount_from_pb, remembered
from lockstep_kit.fields import FieldInvalid


class Reading:
    """Reads amounts, and counts how often."""

    def __init__(self) -> None:
        self.count = 0

    def read(self, message: amount_pb2.Amount) -> Amount:
        """The amount."""
        self.count += 1
        return amount_from_pb(message)


def euros(number: int) -> amount_pb2.Amount:
    return amount_pb2.Amount(asset="EUR", minor_units=str(number), scale=2)


def test_equal_messages_are_read_once() -> None:
    """The same again is the same value, whoever's message it is; another is read for itself."""
    reading = Reading()
    look = remembered(8)(reading.read)
    first = look(euros(1))
    assert look(euros(1)) is first
    assert look(euros(2)) == amount_from_pb(euros(2))
    assert reading.count == 2


def test_a_message_that_is_changed_afterwards_changes_nothing() -> None:
    """What is remembered is by the message's bytes as they were."""
    look = remembered(8)(Reading().read)
    message = euros(1)
    look(message)
    message.minor_units = "7"
    assert look(message) == amount_from_pb(euros(7))
    assert look(euros(1)) == amount_from_pb(euros(1))


def test_a_refusal_is_not_remembered() -> None:
    """What is refused is read, and refused, each time."""
    reading = Reading()
    look = remembered(8)(reading.read)
    for _ in range(2):
        with pytest.raises(FieldInvalid):
            look(amount_pb2.Amount(asset="EUR", minor_units="-", scale=2))
    assert reading.count == 2


def test_the_memory_is_bounded() -> None:
    """Those that were not asked for lately are read again; those that were are not."""
    reading = Reading()
    look = remembered(8)(reading.read)
    for number in range(1, 100):
        assert look(euros(number)) == amount_from_pb(euros(number))
        assert look(euros(500)) == amount_from_pb(euros(500))
    assert reading.count == 100
    look(euros(1))
    assert reading.count == 101
