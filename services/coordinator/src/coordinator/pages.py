"""Requests by their ids, and places in lists as opaque tokens: what every servicer of the coordinator shares. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.message import Message

from coordinator.access import Client
from coordinator.store.requests import Request
from lockstep_kit import ids
from lockstep_kit.ids import PlanId, sha256
from lockstep_kit.opaque_tokens import no_token, number_in, place_in, token_of

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_MARK_DIGITS: Final = 24
#: Microseconds until times end for Python.
_TIME_END: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


def octets_of(message: Message) -> bytes:
    """A message, the same bytes each time."""
    return message.SerializeToString(deterministic=True)


def request_of(method: str, request_id: str, message: Message, client: Client) -> Request:
    """A request by its id, method, content and sender.

    Raises:
        FieldInvalid: the id has another form.
    """
    return Request(
        ids.request_id(request_id), method, sha256(method.encode("ascii") + b"\n" + octets_of(message)), client.client_id
    )


def plan_token(client: Client, plan_id: PlanId) -> str:
    """A place in the client's list of plans: behind one that it was shown, so that the token tells nothing that it has not seen."""
    return token_of("plans:", f"{plan_id}:{_mark('plans', client, plan_id)}")


def plan_place(client: Client, token: str) -> PlanId:
    """The plan that a page token of this client's names. That there is such a plan, and that the client may see it, is the store's to say.

    Raises:
        FieldInvalid: no token of such a list, or another client's.
    """
    name, _, mark = place_in(token, "plans:").partition(":")
    if mark != _mark("plans", client, name):
        raise no_token()
    return ids.plan_id(name, "page_token")


def transition_token(client: Client, plan_id: PlanId, transition_no: int) -> str:
    """A place in a plan's list of transitions, for this client."""
    return token_of("transitions:", f"{transition_no}:{_mark('transitions', client, plan_id, str(transition_no))}")


def transition_place(client: Client, plan_id: PlanId, token: str) -> int:
    """The transition that a page token names.

    Raises:
        FieldInvalid: no token of such a list, or another client's, or of another plan.
    """
    number, _, mark = place_in(token, "transitions:").partition(":")
    if mark != _mark("transitions", client, plan_id, number):
        raise no_token()
    return number_in(number)


def _mark(kind: str, client: Client, *place: str) -> str:
    """Binds a token to who was given it. No secret: whoever made one up for itself would learn nothing by it."""
    return sha256("\x1f".join((kind, client.client_id, *place)).encode()).hex()[:_MARK_DIGITS]


def time_token(kind: str, moment: datetime, name: str) -> str:
    """A place that is a time, with a name among what has the same time."""
    return token_of(f"{kind}:", f"{(moment - _EPOCH) // _MICROSECOND}:{name}")


def time_place(kind: str, token: str) -> tuple[datetime, str]:
    """The time and name in a page token.

    Raises:
        FieldInvalid: no token of such a list.
    """
    told, _, name = place_in(token, f"{kind}:").partition(":")
    count = number_in(told)
    if count > _TIME_END or not name.isprintable():
        raise no_token()
    return _EPOCH + count * _MICROSECOND, name
