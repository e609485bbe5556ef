"""Fields of operators' requests that no database and no calendar can hold: refused by name, whatever is looked for with them."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest

from coordinator.access import Client
from coordinator.pages import plan_place, time_place
from lockstep.coordinator.v1 import operator_service_pb2 as messages
from lockstep.coordinator.v1.operator_service_pb2_grpc import OperatorServiceStub
from lockstep_kit.errors import from_rpc
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import sha256
from lockstep_kit.resolutions import Resolution, Verb
from lockstep_kit.rpc import channel
from lockstep_kit.standing import NOBODY

CLIENT = "spiffe://lockstep.local/client/test"
SECONDS = 60.0


def token(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


def aged(seconds: int) -> messages.ListInDoubtRequest:
    request = messages.ListInDoubtRequest()
    request.age_min.seconds = seconds
    return request


Call = Callable[[OperatorServiceStub], Awaitable[Any]]
ODD: dict[str, tuple[Call, str]] = {
    "an id with a NUL": (lambda stub: stub.GetEscalation(messages.GetEscalationRequest(escalation_id="\x00")), "escalation_id"),
    "no id": (lambda stub: stub.GetEscalation(messages.GetEscalationRequest()), "escalation_id"),
    "a long id": (lambda stub: stub.GetEscalation(messages.GetEscalationRequest(escalation_id="e" * 101)), "escalation_id"),
    "a reason with a NUL": (lambda stub: stub.ListEscalations(messages.ListEscalationsRequest(reason="A\x00B")), "reason"),
    "a place after all times": (
        lambda stub: stub.ListEscalations(messages.ListEscalationsRequest(page_token=token(f"escalations:{'9' * 18}:x"))),
        "page_token",
    ),
    "a place with a NUL": (
        lambda stub: stub.ListDeadLetters(messages.ListDeadLettersRequest(page_token=token("dead_letters:1:\x00"))),
        "page_token",
    ),
    "a letter with a NUL": (
        lambda stub: stub.ReplayDeadLetter(messages.ReplayDeadLetterRequest(request_id=str(uuid.uuid4()), dead_letter_id="\x00")),
        "dead_letter_id",
    ),
    "an age beyond all times": (lambda stub: stub.ListInDoubt(aged(2**63 - 1)), "age_min"),
    "an age before": (lambda stub: stub.ListInDoubt(aged(-1)), "age_min"),
}


@pytest.mark.integration
async def test_odd_fields_are_refused_by_name(world: Any) -> None:
    """Each is the caller's mistake, named by its field, and never a defect of the service's."""
    async with world.coordinator():
        made = channel(f"127.0.0.1:{world.port}", world.tls_for(CLIENT))
        stub = OperatorServiceStub(Timed(made))  # type: ignore[arg-type]  # as much of a channel as a stub needs
        for name, (call, field) in ODD.items():
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(stub)
            error = from_rpc(refused.value)
            assert (error.reason, error.fields[0].field if error.fields else "") == ("FIELD_INVALID", field), name
        await made.close()


class Timed:
    """A channel whose calls have a deadline."""

    def __init__(self, made: grpc.aio.Channel) -> None:
        self._made = made

    def unary_unary(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        method = self._made.unary_unary(*args, **kwargs)
        return lambda request: method(request, timeout=SECONDS)


@pytest.mark.parametrize("text", ["plans", "plans:", "plans:-1", "plans:1e9", "plans:" + "1" * 19, "other:1", "plans:\u0661"])
def test_places_in_tokens(text: str) -> None:
    """What no response has given is refused."""
    with pytest.raises(FieldInvalid):
        plan_place(Client(CLIENT, NOBODY), token(text))


@pytest.mark.parametrize("text", ["escalations:253402300800000000:x", "escalations::x", "escalations:1:a\x00", "letters:1:x"])
def test_times_in_tokens(text: str) -> None:
    """The same of times; the last moment that there is still counts."""
    with pytest.raises(FieldInvalid):
        time_place("escalations", token(text))
    assert time_place("escalations", token("escalations:253402300799999999:x"))[0].year == 9999


def test_resolutions_hold_text() -> None:
    """An operator signs nothing that the database could not keep."""
    good = Resolution(sha256(b"plan"), "escalation", Verb.RETRY, detail="try again")
    good.check()
    for bad in (replace(good, escalation_id="a\x00"), replace(good, escalation_id=""), replace(good, detail="a\x00b")):
        with pytest.raises(FieldInvalid):
            bad.check()
