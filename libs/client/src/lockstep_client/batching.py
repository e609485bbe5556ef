"""Requests in batches: as many in a call as it may hold, each answered by itself; those that were not done, and may be soon, are sent again as they are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, Protocol, TypeVar

from google.protobuf.message import Message

from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep.coordinator.v1.settlement_pb2 import Plan
from lockstep_client.calls import CallSettings, pause, unary, worth_another
from lockstep_kit.errors import LockstepError, from_status
from lockstep_kit.fields import require
from lockstep_kit.rpc.arrows import BATCH_MAX, METHODS, SETTLEMENT

#: What a call's requests may have together: what the service takes, but for the lengths before them.
BATCH_BYTES_MAX: Final = METHODS[f"/{SETTLEMENT}/CreatePlans"].request_bytes_max - BATCH_MAX * 8
#: The request was done, and its answer did not fit into the message.
_TOO_LARGE: Final = "ANSWERS_TOO_LARGE"


class _Answered(Protocol):
    """The response of a batch."""

    @property
    def answers(self) -> Sequence[messages.PlanAnswer]:
        """One of each request."""
        ...


_RequestT = TypeVar("_RequestT", bound=Message)


async def batched(
    requests: Sequence[_RequestT], call: Callable[[Sequence[_RequestT], float], Awaitable[_Answered]], settings: CallSettings
) -> list[Plan | LockstepError]:
    """What became of each request, in their order; `call` is given the requests of one batch and the deadline of a try in seconds.

    Raises:
        LockstepError: a batch was refused as a whole, or nothing answered after the last try. Of what was in it nothing is known.
        FieldInvalid: the service answered another number of requests.
    """
    found: dict[int, Plan | LockstepError] = {}
    left = list(range(len(requests)))
    for attempt in range(settings.attempts_max):
        for places in _parted(requests, left):
            batch = [requests[place] for place in places]
            response = await unary(lambda seconds, batch=batch: call(batch, seconds), settings)  # type: ignore[misc]
            require(len(response.answers) == len(batch), "answers", "must be as many as there were requests")
            found.update(zip(places, map(_answer, response.answers), strict=True))
        left = [place for place in left if _again(found[place], settings)]
        if not left:
            break
        waited = [error for place in left if isinstance(error := found[place], LockstepError) and error.reason != _TOO_LARGE]
        if waited and attempt + 1 < settings.attempts_max:
            await pause(attempt, settings, max(waited, key=_patience))
    return [found[place] for place in range(len(requests))]


def _parted(requests: Sequence[Message], places: Sequence[int]) -> Iterator[list[int]]:
    """Batches, each as large as a call may be; what is too large alone is for the service to refuse."""
    batch: list[int] = []
    size = 0
    for place in places:
        octets = requests[place].ByteSize()
        if batch and (len(batch) == BATCH_MAX or size + octets > BATCH_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(place)
        size += octets
    if batch:
        yield batch


def _answer(answer: messages.PlanAnswer) -> Plan | LockstepError:
    if answer.HasField("plan"):
        return answer.plan
    return from_status(answer.refusal.code, answer.refusal.message, answer.refusal.details)


def _again(answer: Plan | LockstepError, settings: CallSettings) -> bool:
    return isinstance(answer, LockstepError) and (answer.reason == _TOO_LARGE or worth_another(answer, settings))


def _patience(error: LockstepError) -> float:
    return 0.0 if error.retry_after is None else error.retry_after.total_seconds()
