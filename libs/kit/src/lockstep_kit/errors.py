"""The error that crosses RPC: raised on one side, sent as google.rpc.Status, raised again on the other.

There is always exactly one ErrorInfo, with a reason of docs/errors.md and the domain "lockstep"; other details where they fit. What is not a LockstepError
or a FieldInvalid becomes INTERNAL, and its text stays in the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from lockstep_kit.certificate import NotAuthorised
from lockstep_kit.fields import FieldInvalid

DOMAIN: Final = "lockstep"


@dataclass
class LockstepError(Exception):
    """A refusal or failure with a reason that programs can read."""

    #: gRPC status.
    code: grpc.StatusCode
    #: UPPER_SNAKE, docs/errors.md.
    reason: str
    #: One sentence for a person.
    message: str
    #: Values that the message names: plan, leg, phase, …
    metadata: Mapping[str, str] = field(default_factory=dict)
    #: Fields that break a rule.
    fields: tuple[FieldInvalid, ...] = ()
    #: When it may be tried again.
    retry_after: timedelta | None = None

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


def field_invalid(finding: FieldInvalid) -> LockstepError:
    """A field breaks a rule."""
    return LockstepError(grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", str(finding), {"field": finding.field}, (finding,))


def not_found(what: str, name: str) -> LockstepError:
    """There is no such thing, or the caller may not see it."""
    return LockstepError(grpc.StatusCode.NOT_FOUND, f"{what.upper()}_NOT_FOUND", f"there is no {what} {name}", {what: name})


def precondition(reason: str, message: str, **metadata: str) -> LockstepError:
    """The thing is in a state that does not allow this."""
    return LockstepError(grpc.StatusCode.FAILED_PRECONDITION, reason, message, metadata)


def permission_denied(reason: str, message: str, **metadata: str) -> LockstepError:
    """The caller, or the person who signed, may not."""
    return LockstepError(grpc.StatusCode.PERMISSION_DENIED, reason, message, metadata)


def request_id_reused(request_id: str) -> LockstepError:
    """The request id was used for something else."""
    message = "the request id was used with other content"
    return LockstepError(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED", message, {"request_id": request_id})


def aborted(reason: str, message: str, **metadata: str) -> LockstepError:
    """Somebody else was faster."""
    return LockstepError(grpc.StatusCode.ABORTED, reason, message, metadata)


def unavailable(reason: str, message: str, retry_after: timedelta = timedelta(seconds=1)) -> LockstepError:
    """Nothing was done; try again."""
    return LockstepError(grpc.StatusCode.UNAVAILABLE, reason, message, retry_after=retry_after)


def as_error(error: BaseException) -> LockstepError:
    """Any exception as the error that a caller may see."""
    match error:
        case LockstepError():
            return error
        case FieldInvalid():
            return field_invalid(error)
        case NotAuthorised():
            return permission_denied(error.reason, error.detail)
        case _:
            return LockstepError(grpc.StatusCode.INTERNAL, "INTERNAL", "an internal error; the log of the service says more")


def to_status(error: LockstepError) -> status_pb2.Status:
    """The error as google.rpc.Status."""
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=dict(error.metadata))]
    if error.fields:
        violations = [error_details_pb2.BadRequest.FieldViolation(field=each.field, description=each.rule) for each in error.fields]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    if error.code is grpc.StatusCode.FAILED_PRECONDITION:
        violation = error_details_pb2.PreconditionFailure.Violation(type=error.reason, description=error.message)
        details.append(error_details_pb2.PreconditionFailure(violations=[violation]))
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromTimedelta(error.retry_after)
        details.append(retry)
    packed = []
    for detail in details:
        holder = any_pb2.Any()
        holder.Pack(detail)
        packed.append(holder)
    return status_pb2.Status(code=_number(error.code), message=error.message, details=packed)


def _number(code: grpc.StatusCode) -> int:
    return int(code_pb2.Code.Value(code.name))


def from_rpc(error: grpc.aio.AioRpcError) -> LockstepError:
    """The error that a call ended with. A caller that asked for an effect still knows nothing about the effect."""
    reason, metadata, fields, retry = error.code().name, {}, [], None
    status = rpc_status.from_call(error)
    for holder in status.details if status is not None else ():
        info, bad, again = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if holder.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif holder.Unpack(bad):
            fields = [FieldInvalid(each.field, each.description) for each in bad.field_violations]
        elif holder.Unpack(again):
            retry = again.retry_delay.ToTimedelta()
    return LockstepError(error.code(), reason, error.details() or "", metadata, tuple(fields), retry)
