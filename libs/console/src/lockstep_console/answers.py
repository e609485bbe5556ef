"""What is answered when something cannot be: one JSON object with the reason, a sentence, and what to do next. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import grpc

from lockstep_client.commands.context import Refused
from lockstep_kit.errors import LockstepError
from lockstep_kit.fields import FieldInvalid

#: HTTP status and advice by the service's gRPC status.
_BY_CODE: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: (400, "correct the field that is named, and ask again"),
    grpc.StatusCode.NOT_FOUND: (404, "check the id: what is not there and what the console may not see are answered alike"),
    grpc.StatusCode.FAILED_PRECONDITION: (409, "look at the plan: it stands otherwise than was asked for"),
    grpc.StatusCode.OUT_OF_RANGE: (409, "begin anew: reload the page"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (503, "wait a moment: the console has asked the service for too much"),
    grpc.StatusCode.PERMISSION_DENIED: (502, "have the console's certificate named by the service's settings, as an auditor"),
    grpc.StatusCode.UNAUTHENTICATED: (502, "see the console's certificate and whom it trusts (tls)"),
}
_UNREACHED: Final = (503, "nothing is known meanwhile: what was shown before may be old; the console tries again by itself")


@dataclass(eq=False)
class Unanswered(Exception):
    """Why there is no answer."""

    #: HTTP status.
    status: int
    #: UPPER_SNAKE.
    reason: str
    #: One sentence.
    message: str
    #: What a person can do about it.
    next: str

    def document(self) -> dict[str, str]:
        """What is told."""
        return {"reason": self.reason, "message": self.message, "next": self.next}


def unanswered(error: LockstepError | FieldInvalid | Refused) -> Unanswered:
    """What is answered for a service's refusal, a field that breaks a rule, or a statement that must not be signed."""
    match error:
        case LockstepError():
            status, advice = _BY_CODE.get(error.code, _UNREACHED)
            return Unanswered(status, error.reason, "; ".join(str(each) for each in error.fields) or error.message, advice)
        case FieldInvalid():
            status, advice = _BY_CODE[grpc.StatusCode.INVALID_ARGUMENT]
            return Unanswered(status, "FIELD_INVALID", str(error), advice)
        case Refused():
            return Unanswered(409, error.reason, error.message, "nothing is to be signed as the plan is shown now")
