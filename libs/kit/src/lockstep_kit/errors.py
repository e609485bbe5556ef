"""The error that crosses RPC: raised on one side, sent as google.rpc.Status, raised again on the other.

There is always exactly one ErrorInfo (AIP-193), with a reason of docs/errors.md and the domain "lockstep"; other details where they fit. What is no
LockstepError and none of the rules' own exceptions becomes INTERNAL, and its text stays in the log. A status leaves in a trailer, which has a limit:
texts are cut, lists shortened. They are scrubbed too: what a caller gave in the wrong field is not quoted back, nor is what a library said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, TypeVar, cast

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from lockstep_kit.certificate import NotAuthorised
from lockstep_kit.db import is_database_trouble
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.scrubbing import scrubbed

_Detail = TypeVar("_Detail", bound=Message)

DOMAIN: Final = "lockstep"
INTERNAL: Final = "INTERNAL"

#: gRPC takes 8 KiB of trailers by default, where a message is percent-encoded and a status is base64.
TEXT_CHARACTERS_MAX: Final = 256
METADATA_CHARACTERS_MAX: Final = 128
FIELDS_BYTES_MAX: Final = 1_800

#: Numbers of google.rpc.Code.
_CODES: Final = {each.value[0]: each for each in grpc.StatusCode}

#: Keys of the metadata that tell where an error belongs.
PLAN, LEG, PHASE, AUDIT_LOG = "plan", "leg", "phase", "audit_log_id"


@dataclass(eq=False)
class LockstepError(Exception):
    """A refusal or failure with a reason that programs can read."""

    #: gRPC status.
    code: grpc.StatusCode
    #: UPPER_SNAKE, docs/errors.md.
    reason: str
    #: One sentence for a person.
    message: str
    #: Values that the message names, by PLAN, LEG, PHASE, AUDIT_LOG and others.
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


def resume_token_expired() -> LockstepError:
    """What the token resumes from is no longer kept: start over without one."""
    return LockstepError(
        grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED", "the resume token is too old: start over without one"
    )


def as_error(error: BaseException) -> LockstepError:
    """Any exception as the error that a caller may see. Of the database's troubles it learns that it may try again, and no more."""
    match error:
        case LockstepError():
            return error
        case FieldInvalid():
            return field_invalid(error)
        case NotAuthorised():
            return permission_denied(error.reason, error.detail)
        case _ if is_database_trouble(error):
            return unavailable("DATABASE_UNAVAILABLE", "the service cannot reach its database, or had to give way there")
        case _:
            return LockstepError(grpc.StatusCode.INTERNAL, INTERNAL, "an internal error; the log of the service says more")


def to_status(error: LockstepError) -> status_pb2.Status:
    """The error as google.rpc.Status."""
    message = _cut(error.message, TEXT_CHARACTERS_MAX)
    metadata = {name: _cut(value, METADATA_CHARACTERS_MAX) for name, value in error.metadata.items()}
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)]
    if error.fields:
        details.append(_bad_request(error.fields))
    if error.code is grpc.StatusCode.FAILED_PRECONDITION:
        subject = "/".join(metadata[name] for name in (PLAN, LEG) if name in metadata)
        violation = error_details_pb2.PreconditionFailure.Violation(type=error.reason, subject=subject, description=message)
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
    return status_pb2.Status(code=_number(error.code), message=message, details=packed)


def _bad_request(fields: tuple[FieldInvalid, ...]) -> error_details_pb2.BadRequest:
    """The first findings, as many as fit."""
    bad = error_details_pb2.BadRequest()
    for each in fields:
        field, rule = _cut(each.field, METADATA_CHARACTERS_MAX), _cut(each.rule, TEXT_CHARACTERS_MAX)
        bad.field_violations.add(field=field, description=rule)
        if bad.ByteSize() > FIELDS_BYTES_MAX:
            break
    if len(bad.field_violations) > 1 and bad.ByteSize() > FIELDS_BYTES_MAX:
        del bad.field_violations[-1]
    return bad


def _cut(text: str, characters_max: int) -> str:
    text = scrubbed(text)
    return text if len(text) <= characters_max else text[: characters_max - 1] + "…"


def _number(code: grpc.StatusCode) -> int:
    return int(code_pb2.Code.Value(code.name))


def from_rpc(error: grpc.aio.AioRpcError) -> LockstepError:
    """The error that a call ended with; details of another domain, as a proxy adds them, are not taken for ours.

    A caller that asked for an effect still knows nothing about the effect.
    """
    found = LockstepError(error.code(), error.code().name, error.details() or "")
    try:
        status = rpc_status.from_call(cast("grpc.Call", error))
    except (ValueError, DecodeError):
        # The trailer contradicts the status: whoever wrote it, it says nothing reliable.
        return found
    return _with_details(found, status.details if status is not None else ())


def from_status(code: int, message: str, details: Iterable[any_pb2.Any]) -> LockstepError:
    """The error that one request of a batch was answered: the fields of google.rpc.Status."""
    known = _CODES.get(code, grpc.StatusCode.UNKNOWN)
    return _with_details(LockstepError(known, known.name, message), details)


def _with_details(found: LockstepError, details: Iterable[any_pb2.Any]) -> LockstepError:
    infos = [info for info in _unpacked(details, error_details_pb2.ErrorInfo) if info.domain == DOMAIN]
    if not infos:
        return found
    found.reason, found.metadata = infos[0].reason, dict(infos[0].metadata)
    for bad in _unpacked(details, error_details_pb2.BadRequest):
        found.fields = tuple(FieldInvalid(each.field, each.description) for each in bad.field_violations)
    for again in _unpacked(details, error_details_pb2.RetryInfo):
        found.retry_after = again.retry_delay.ToTimedelta()
    return found


def _unpacked(details: Iterable[any_pb2.Any], kind: type[_Detail]) -> Iterator[_Detail]:
    for holder in details:
        detail = kind()
        try:
            if holder.Unpack(detail):
                yield detail
        except DecodeError:
            continue
