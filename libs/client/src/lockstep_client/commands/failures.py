"""What a failed call is to the person who made it: how the command ends, the cause in one line, and what to do next in another. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import grpc

from lockstep_client.commands.context import BAD_INPUT, REFUSED, UNREACHABLE
from lockstep_kit.errors import LockstepError
from lockstep_kit.values import dataclass

#: What to do next, by the reason of a refusal.
_ADVICE: Final[Mapping[str, str]] = {
    "PLAN_NOT_FOUND": "see `lockstep plan list`",
    "CHECKPOINT_PENDING": "the journal signs one within seconds: try again, or wait longer (--wait)",
    "AUDIT_LOG_NOT_FOUND": "only a plan that did not settle has one, once nothing is held for it any more",
    "PLAN_STATE": "see `lockstep plan show`",
    "PLAN_CHANGED": "look at the plan again, then cancel with its present etag",
    "PLAN_FROZEN": "operators must look at the plan's journal",
    "GATE_ALREADY_OPEN": "nothing more is to be signed at this gate",
    "GATE_SAME_PERSON": "somebody who has not signed this plan yet must sign",
    "GATE_ROLE": "use the key of somebody who has the role",
    "GATE_SIGNATURE": "use a key that is registered and valid now",
    "GATE_EXPIRED": "sign again",
    "GATE_NONCE_REUSED": "sign again",
    "GATE_VOTES_DIGEST": "the votes have changed: sign again",
    "GATE_EVIDENCE_DIGEST": "the evidence has changed: sign again",
    "ESCALATION_NOT_FOUND": "see `lockstep escalations list`",
    "DEAD_LETTER_NOT_FOUND": "see `lockstep dead-letters list`",
    "RESOLUTION_NOT_ALLOWED": "see what is allowed: `lockstep escalations show`",
    "RESOLUTION_CLOSED": "nothing more is to be signed about it",
    "RESOLUTION_SAME_PERSON": "an operator must sign who has signed neither this nor one of the plan's gates",
    "RESOLUTION_ROLE": "use the key of an operator",
    "RESOLUTION_SIGNATURE": "use a key that is registered and valid now",
    "RESOLUTION_EXPIRED": "sign again",
    "RESOLUTION_NONCE_REUSED": "sign again",
    "RESOLUTION_LEG": "name the leg that the escalation is about, or none",
    "RESOLUTION_EVIDENCE": "show the bank's evidence of a payment, the chain's of a token transfer",
    "STEP_DEPENDENCY_FAILED": "mend depends_on in the plan file",
    "REQUEST_ID_REUSED": "make a new plan",
    "CALLER_NOT_ALLOWED": "use a client certificate that may call this method (tls in the configuration)",
    "CERTIFICATE_EXPIRED": "renew the client's certificate (tls.certificate_file in the configuration)",
    "CERTIFICATE_LIVES_TOO_LONG": "have a certificate with a shorter life issued (tls.certificate_file in the configuration)",
}
#: The same by the status, for reasons that have no advice of their own.
_GENERAL: Final[Mapping[grpc.StatusCode, str]] = {
    grpc.StatusCode.PERMISSION_DENIED: "use a client, or a key, that may do this; docs/errors.md says more of the reason",
    grpc.StatusCode.UNAUTHENTICATED: "renew the client's certificate (tls.certificate_file in the configuration)",
    grpc.StatusCode.NOT_FOUND: "check the id, and whom the client stands for",
    grpc.StatusCode.ABORTED: "look at it again, then try again",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "try again later, or less often; docs/errors.md says more of the reason",
    grpc.StatusCode.UNIMPLEMENTED: "the service is older than this command, or the address is another service's",
    grpc.StatusCode.INTERNAL: "have the service's log looked at, and report it with the trace id",
}
#: What the transport's own words for a handshake that failed hold.
_HANDSHAKE: Final = ("ssl handshake", "tls handshake", "certificate_verify_failed", "peer name", "handshaker", "tsi_")


@dataclass(frozen=True, slots=True)
class Failure:
    """How a command ends that could not do its work."""

    #: Exit code.
    exit_code: int
    #: UPPER_SNAKE.
    reason: str
    #: What happened, one line.
    cause: str
    #: What to do next, one line; "" where the cause says it.
    advice: str


def explained(error: LockstepError) -> Failure:
    """A service's error, or the transport's."""
    if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        cause = f"no answer in time ({error.message or 'the deadline has passed'}); nothing is known of the request"
        return Failure(
            UNREACHABLE, error.reason, cause, "look at the plan before you try again; `lockstep doctor` says who is slow"
        )
    if error.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return _unreachable(error)
    exit_code = BAD_INPUT if error.code is grpc.StatusCode.INVALID_ARGUMENT else REFUSED
    cause = "; ".join(str(each) for each in error.fields) or error.message
    return Failure(exit_code, error.reason, cause, _ADVICE.get(error.reason, _GENERAL.get(error.code, "")))


def _unreachable(error: LockstepError) -> Failure:
    """Nobody answered: the certificates do not fit, nobody listens there, or the service said that it cannot now."""
    cause = f"{error.message or 'no answer'}; nothing is known of the request"
    if any(each in error.message.lower() for each in _HANDSHAKE):
        advice = "compare tls in the configuration with the service's authority and the certificates' dates: `lockstep doctor`"
    elif error.reason == grpc.StatusCode.UNAVAILABLE.name:
        advice = "check that the service runs and that the configuration has its address: `lockstep doctor`; then try again"
    else:
        advice = "look at the plan, or try again"
    return Failure(UNREACHABLE, error.reason, cause, advice)
