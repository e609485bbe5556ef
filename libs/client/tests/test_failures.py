"""What a failed call is to the person who made it: the right exit code, the cause, and what to do next."""

from __future__ import annotations

import grpc
import pytest

from lockstep_client.commands.context import BAD_INPUT, REFUSED, UNREACHABLE
from lockstep_client.commands.failures import explained
from lockstep_kit.errors import LockstepError, field_invalid, not_found, permission_denied, precondition, unavailable
from lockstep_kit.fields import FieldInvalid

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
HANDSHAKE = "failed to connect to all addresses; Ssl handshake failed: SSL_ERROR_SSL: CERTIFICATE_VERIFY_FAILED"

CASES = [
    (LockstepError(UNAVAILABLE, "UNAVAILABLE", "Connection refused"), UNREACHABLE, "nothing is known", "the service runs"),
    (LockstepError(UNAVAILABLE, "UNAVAILABLE", HANDSHAKE), UNREACHABLE, "handshake", "authority"),
    (LockstepError(UNAVAILABLE, "UNAVAILABLE", "Peer name x is not in peer certificate"), UNREACHABLE, "Peer name", "authority"),
    (unavailable("DATABASE_UNAVAILABLE", "no database"), UNREACHABLE, "no database", "try again"),
    (
        LockstepError(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", ""),
        UNREACHABLE,
        "no answer in time",
        "look at the plan",
    ),
    (permission_denied("CALLER_NOT_ALLOWED", "you may not"), REFUSED, "you may not", "client certificate"),
    (permission_denied("ANYTHING", "you may not"), REFUSED, "you may not", "docs/errors.md"),
    (not_found("plan", "x"), REFUSED, "there is no plan x", "lockstep plan list"),
    (not_found("moon", "x"), REFUSED, "there is no moon x", "check the id"),
    (precondition("PLAN_STATE", "it is decided"), REFUSED, "it is decided", "lockstep plan show"),
    (field_invalid(FieldInvalid("plan_id", "must be a UUID")), BAD_INPUT, "plan_id must be a UUID", ""),
    (LockstepError(grpc.StatusCode.UNAUTHENTICATED, "CERTIFICATE_EXPIRED", "it ran out"), REFUSED, "ran out", "renew"),
    (LockstepError(grpc.StatusCode.RESOURCE_EXHAUSTED, "CALLS_TOO_FAST", "too fast"), REFUSED, "too fast", "later"),
    (LockstepError(grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED", "unknown"), REFUSED, "unknown", "older"),
    (LockstepError(grpc.StatusCode.INTERNAL, "INTERNAL", "a defect"), REFUSED, "a defect", "trace id"),
]


@pytest.mark.parametrize(("error", "exit_code", "cause", "advice"), CASES)
def test_causes_and_next_steps(error: LockstepError, exit_code: int, cause: str, advice: str) -> None:
    """Each kind of failure ends as it should, says its cause, and what to do next where the cause does not."""
    failure = explained(error)
    assert (failure.exit_code, failure.reason) == (exit_code, error.reason)
    assert cause in failure.cause
    assert advice in failure.advice
    assert bool(advice) is bool(failure.advice)
