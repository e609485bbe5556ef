"""Batches of requests: each request of one is answered by itself, as it would be alone, and none keeps another from being done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final, TypeVar

import grpc
from google.protobuf.message import Message

from coordinator.answering import Asked
from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep_kit.convert.parts import part
from lockstep_kit.errors import LockstepError, to_status
from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.rpc.arrows import BATCH_MAX
from lockstep_kit.rpc.guard import shown

#: What the answers of a batch may have together: less than the largest message that is sent, and that clients take.
ANSWERS_BYTES_MAX: Final = 3 << 20

_MessageT = TypeVar("_MessageT", bound=Message)
_AskedT = TypeVar("_AskedT", bound=Asked)
_ResponseT = TypeVar("_ResponseT", messages.CreatePlansResponse, messages.ExecutePlansResponse, messages.SignGatesResponse)


def tried(requests: Collection[_MessageT], read: Callable[[_MessageT], _AskedT]) -> list[_AskedT | Exception]:
    """The requests of a batch, read one by one: each, or why it is refused.

    Raises:
        FieldInvalid: there is none, or there are too many.
    """
    require(1 <= len(requests) <= BATCH_MAX, "requests", f"must be 1 to {BATCH_MAX}")
    found: list[_AskedT | Exception] = []
    for each in requests:
        try:
            found.append(read(each))
        except (FieldInvalid, LockstepError) as error:
            found.append(error)
    return found


async def answered(
    method: str,
    response: type[_ResponseT],
    asked: Sequence[_AskedT | Exception],
    do: Callable[[Sequence[_AskedT]], Awaitable[Sequence[bytes | Exception]]],
) -> _ResponseT:
    """What became of each request of a batch, in their order; those that were refused already are not done."""
    done = iter(await do([each for each in asked if not isinstance(each, Exception)]))
    # What ended a whole transaction is told to many, and logged once.
    refusals: dict[int, bytes] = {}
    found, size, written = [], 0, part(response, "answers")
    for each in asked:
        answer = each if isinstance(each, Exception) else next(done)
        if isinstance(answer, bytes):
            size += len(answer)
            # The answer of a request alone has the same field for its plan.
            found.append(written(answer if size <= ANSWERS_BYTES_MAX else _refused(method, _too_large())))
            continue
        if id(answer) not in refusals:
            refusals[id(answer)] = _refused(method, answer)
        found.append(written(refusals[id(answer)]))
    return response.FromString(b"".join(found))


def _refused(method: str, error: Exception) -> bytes:
    status = to_status(shown(method, error))
    refusal = messages.Refusal(code=status.code, message=status.message, details=status.details)
    return messages.PlanAnswer(refusal=refusal).SerializeToString()


def _too_large() -> LockstepError:
    message = "it was done, and the answers before it fill the message: send it again, with fewer others, for its answer"
    return LockstepError(grpc.StatusCode.RESOURCE_EXHAUSTED, "ANSWERS_TOO_LARGE", message)
