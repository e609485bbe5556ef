"""Messages put together from the bytes of their parts."""

from __future__ import annotations

import pytest

from lockstep.coordinator.v1 import settlement_pb2
from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep_kit.convert.parts import number, part


@pytest.mark.parametrize("length", [0, 1, 127, 128, 4_095, 4_096, 16_384, 300_000])
def test_what_is_written_apart_is_one_message(length: int) -> None:
    """Fields written one after another, of whatever length, are read as the message itself would have been."""
    sentence = "ä" * (length // 2) + "x" * (length % 2)
    plan = settlement_pb2.Plan(state=settlement_pb2.PLAN_STATE_CLOSED, reason_detail=sentence)
    octets = (
        part(messages.PlanNews, "plan_id")(b"a plan")
        + number(messages.PlanNews, "sequence")(length)
        + part(messages.PlanNews, "plan")(plan.SerializeToString())
        + number(messages.PlanNews, "left")(1)
    )
    whole = messages.PlanNews(plan_id="a plan", sequence=length, plan=plan, left=True)
    assert messages.PlanNews.FromString(octets) == whole
    assert octets == whole.SerializeToString(deterministic=True)


def test_a_field_that_holds_several_is_written_for_each() -> None:
    """Each is one of them, in their order, an empty one too."""
    write = part(messages.WatchPlansResponse, "news")
    told = [messages.PlanNews(plan_id="one"), messages.PlanNews(), messages.PlanNews(plan_id="two", left=True)]
    read = messages.WatchPlansResponse.FromString(b"".join(write(each.SerializeToString()) for each in told))
    assert list(read.news) == told


@pytest.mark.parametrize("value", [1, 127, 128, 2**31 - 1, 2**53])
def test_numbers(value: int) -> None:
    """A number is written as the message writes it, and 0 not at all, as there."""
    write = number(settlement_pb2.PlanEvent, "sequence")
    assert write(value) == settlement_pb2.PlanEvent(sequence=value).SerializeToString()
    assert write(0) == settlement_pb2.PlanEvent(sequence=0).SerializeToString() == b""


def test_no_such_field() -> None:
    """A field that the message has not, or that is written otherwise, is refused when it is named, not when it is written."""
    for write, name in ((part, "nothing"), (number, "nothing"), (part, "sequence"), (number, "transition")):
        with pytest.raises(ValueError, match=name):
            write(settlement_pb2.PlanEvent, name)
