from __future__ import annotations

from datetime import timedelta
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from lockstep.journal.v1 import journal_reader_service_pb2 as messages
from lockstep_kit import errors
from lockstep_kit.certificate import NotAuthorised
from lockstep_kit.errors import LockstepError, as_error, from_rpc
from lockstep_kit.fields import FieldInvalid

Code = grpc.StatusCode
REQUEST = messages.VerifyPlanRequest(plan_id="p")

#: What is raised on one side, and what arrives: code, reason, metadata, fields, retry.
CASES: dict[str, tuple[Exception, tuple[Code, str, dict[str, str], list[tuple[str, str]], timedelta | None]]] = {
    "field": (
        FieldInvalid("legs[0].amount", "must be positive"),
        (Code.INVALID_ARGUMENT, "FIELD_INVALID", {"field": "legs[0].amount"}, [("legs[0].amount", "must be positive")], None),
    ),
    "reused": (
        errors.request_id_reused("r-1"),
        (Code.ALREADY_EXISTS, "REQUEST_ID_REUSED", {"request_id": "r-1"}, [], None),
    ),
    "precondition": (
        errors.precondition("CUTOFF_PASSED", "the cut-off has passed", plan="p", leg="bank", phase="EXECUTING", audit_log_id="a"),
        (
            Code.FAILED_PRECONDITION,
            "CUTOFF_PASSED",
            {"plan": "p", "leg": "bank", "phase": "EXECUTING", "audit_log_id": "a"},
            [],
            None,
        ),
    ),
    "stale": (
        errors.aborted("PLAN_CHANGED", "another replica was faster", plan="p"),
        (Code.ABORTED, "PLAN_CHANGED", {"plan": "p"}, [], None),
    ),
    "busy": (
        errors.unavailable("LEG_BUSY", "the leg is being worked on", timedelta(seconds=2.5)),
        (Code.UNAVAILABLE, "LEG_BUSY", {}, [], timedelta(seconds=2.5)),
    ),
    "denied": (errors.permission_denied("ROLE_MISSING", "no role"), (Code.PERMISSION_DENIED, "ROLE_MISSING", {}, [], None)),
    "not authorised": (NotAuthorised("KEY_UNKNOWN", "no such key"), (Code.PERMISSION_DENIED, "KEY_UNKNOWN", {}, [], None)),
    "token": (errors.resume_token_expired(), (Code.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED", {}, [], None)),
    "absent": (errors.not_found("plan", "p"), (Code.NOT_FOUND, "PLAN_NOT_FOUND", {"plan": "p"}, [], None)),
    "unforeseen": (RuntimeError("secret"), (Code.INTERNAL, "INTERNAL", {}, [], None)),
    "database": (
        asyncpg.DeadlockDetectedError("secret"),
        (Code.UNAVAILABLE, "DATABASE_UNAVAILABLE", {}, [], timedelta(seconds=1)),
    ),
    "constraint": (asyncpg.UniqueViolationError("secret"), (Code.INTERNAL, "INTERNAL", {}, [], None)),
}


@pytest.mark.integration
@pytest.mark.parametrize("case", CASES)
async def test_errors_keep_what_they_say_over_the_wire(guarded_server: Any, case: str) -> None:
    """What is raised in a handler is what the caller reads, with exactly one ErrorInfo and no text from inside."""
    raised, expected = CASES[case]
    world = await guarded_server()

    async def refuse(request: Any, context: Any) -> messages.VerifyPlanResponse:
        raise raised

    world.servicer.verify = refuse
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (await world.stub_as()).VerifyPlan(REQUEST, timeout=60)
    error = from_rpc(caught.value)
    found = [(each.field, each.rule) for each in error.fields]
    assert (error.code, error.reason, dict(error.metadata), found, error.retry_after) == expected
    assert "secret" not in str(caught.value)
    status = rpc_status.from_call(caught.value)
    kinds = [detail.type_url.rpartition(".")[2] for detail in status.details]
    assert kinds.count("ErrorInfo") == 1
    assert len(kinds) == len(set(kinds))
    assert ("PreconditionFailure" in kinds) is (error.code is Code.FAILED_PRECONDITION)
    assert ("BadRequest" in kinds) is bool(error.fields)
    assert ("RetryInfo" in kinds) is (error.retry_after is not None)


@pytest.mark.integration
async def test_long_errors_are_cut_to_fit_the_trailer(guarded_server: Any) -> None:
    """An error with more text and fields than a trailer holds still arrives as what it is."""
    world = await guarded_server()
    many = tuple(FieldInvalid(f"legs[{n}]." + "x" * 500, "must " + "é" * 5_000) for n in range(500))

    async def refuse(request: Any, context: Any) -> messages.VerifyPlanResponse:
        raise LockstepError(Code.INVALID_ARGUMENT, "FIELD_INVALID", "é" * 20_000, {"field": "x" * 5_000}, many)

    world.servicer.verify = refuse
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (await world.stub_as()).VerifyPlan(REQUEST, timeout=60)
    error = from_rpc(caught.value)
    assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "FIELD_INVALID")
    assert 1 <= len(error.fields) < 10


def _rpc_error(code: Code, message: str, *trailers: tuple[str, bytes]) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), message)


def _details(code: int, message: str, *details: Any) -> tuple[str, bytes]:
    packed = []
    for detail in details:
        holder = any_pb2.Any()
        holder.Pack(detail)
        packed.append(holder)
    return "grpc-status-details-bin", status_pb2.Status(code=code, message=message, details=packed).SerializeToString()


INFO = error_details_pb2.ErrorInfo(reason="PLAN_STATE", domain="lockstep")


@pytest.mark.parametrize(
    "error",
    [
        _rpc_error(Code.UNAVAILABLE, "no route"),
        _rpc_error(Code.UNAVAILABLE, "no route", _details(9, "no route", INFO)),
        _rpc_error(Code.UNAVAILABLE, "no route", _details(14, "another text", INFO)),
        _rpc_error(Code.UNAVAILABLE, "no route", ("grpc-status-details-bin", b"\xff\xff")),
        _rpc_error(
            Code.UNAVAILABLE, "no route", _details(14, "no route", error_details_pb2.ErrorInfo(reason="X", domain="proxy.example"))
        ),
    ],
)
def test_a_status_that_is_not_ours_has_no_reason_of_ours(error: grpc.aio.AioRpcError) -> None:
    """Absent, contradictory, malformed or foreign details leave the code alone, whose name stands for the reason."""
    found = from_rpc(error)
    assert (found.code, found.reason, found.message) == (Code.UNAVAILABLE, "UNAVAILABLE", "no route")


def test_an_error_is_a_plain_exception() -> None:
    """Errors can be raised twice, put into sets and chained."""
    first, second = errors.resume_token_expired(), errors.resume_token_expired()
    assert len({first, second}) == 2
    assert as_error(first) is first
    assert str(first).startswith("RESUME_TOKEN_EXPIRED: ")
