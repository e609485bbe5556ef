"""What becomes of an exception: tried again, the plan given up, a person called, or the command given up as a dead letter. Pure and total.

A code says what went wrong; its category says what kind of thing that is, and `route` what is done about it. What is tried again is tried again by the
relay alone, with capped exponential back-off and full jitter (`commands.repeat_after`): neither the channels nor the participants repeat on their own.
Trying again never ends by itself: a command stands until a signed report answers it, and an answer that is missing for too long calls a person by time
(`calls`). Only what can never be accepted as it is, is given up; a dead letter can be sent again.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, assert_never

from lockstep_kit.certificate import Decision


class Category(StrEnum):
    """What kind of thing went wrong."""

    #: Too early, too late, or not answered yet: time alone may resolve it.
    TIMING = "timing"
    #: What was sent cannot be taken as it is, however often.
    DATA = "data"
    #: Somebody is not convinced: of a signature, a role, a right, a token.
    CONTROL = "control"
    #: The outside world said no.
    BUSINESS = "business"
    #: Something is down, overloaded, or broken.
    SYSTEM = "system"


class Route(StrEnum):
    """What is done about it."""

    #: Tried again, with back-off.
    RETRY = "RETRY"
    #: The plan is given up: nothing was decided yet.
    ABORT = "ABORT"
    #: A person is called; it is tried again meanwhile.
    PARK = "PARK"
    #: The command is given up until somebody has it sent again; a person is called at once.
    DEAD_LETTER = "DEAD_LETTER"


#: So often something is tried that may yet come right (a registry that lags behind, a replica on its way out) before a person is called.
ATTEMPTS_MAX: Final = 8

_TIMING: Final = (
    "ABORT_DEADLINE",
    "COMMIT_LATE",
    "DEADLINE_EXCEEDED",
    "DEADLINE_TOO_CLOSE",
    "JOURNAL_GAP",
    "LEG_ABORTING",
    "LEG_NOT_PREPARED",
    "LEG_REVERSING",
    "PARTICIPANT_UNDESCRIBED",
    "PREPARE_LATE",
)
_DATA: Final = (
    "CERTIFICATE_PLAN_DIGEST",
    "CHECK_FAILED",
    "DIGEST_MISMATCH",
    "FIELD_INVALID",
    "GATE_PLAN_DIGEST",
    "GATE_WRONG",
    "KEY_WRONG",
    "LEG_KIND_NOT_SERVED",
    "LEG_NOT_IN_PLAN",
    "LEG_TWICE",
    "PROMISE_TOO_SHORT",
    "RESOLUTION_DIFFERS",
    "RESOLUTION_PLAN_DIGEST",
    "RESOLUTION_SIGNERS",
    "RESOLUTION_VERB",
    "REVERSE_LEG_KIND",
    "STEP_DEPENDENCY_FAILED",
    "TWO_SOFT_LEGS",
    "UNWIND_IMPOSSIBLE",
)
_CONTROL: Final = (
    "ABORT_GATE",
    "ABORT_OUTCOME",
    "ABORT_VOTE",
    "CALLER_NOT_ALLOWED",
    "CERTIFICATE_DECISION",
    "CERTIFICATE_DELEGATE",
    "CERTIFICATE_LATE",
    "CERTIFICATE_MISSING",
    "CERTIFICATE_OWN_VOTE",
    "CERTIFICATE_PROMISE_LAPSED",
    "CERTIFICATE_VOTES",
    "CERTIFICATE_VOTES_DIGEST",
    "EPOCH_STALE",
    "GATE_AGENT",
    "GATE_ALREADY_OPEN",
    "GATE_EVIDENCE_DIGEST",
    "GATE_EXPIRED",
    "GATE_LIMIT",
    "GATE_NONCE_REUSED",
    "GATE_REJECTED",
    "GATE_ROLE",
    "GATE_SAME_PERSON",
    "GATE_SIGNATURE",
    "GATE_SIGNATURES",
    "GATE_TOO_MANY",
    "GATE_UNSTAFFED",
    "GATE_VOTES_DIGEST",
    "JOURNAL_CONFLICT",
    "LEG_COMMITTED",
    "LEG_DECIDED",
    "LEG_NOT_EXECUTED",
    "LEG_RELEASED",
    "LEG_REVERSED",
    "LEG_UNKNOWN",
    "OUTCOME_SIGNATURE",
    "PARTICIPANT_CONTRADICTS",
    "PARTICIPANT_REPORT",
    "PARTICIPANT_SIGNATURE",
    "PERMISSION_DENIED",
    "PLAN_KEY_SEALED",
    "RESOLUTION_EXPIRED",
    "RESOLUTION_ROLE",
    "RESOLUTION_SAME_PERSON",
    "RESOLUTION_SIGNATURE",
    "REVERSE_OUTCOME",
    "REVERSE_POLICY",
    "SOD_VERSION_UNKNOWN",
    "UNAUTHENTICATED",
    "VOTE_SIGNATURE",
)
_BUSINESS: Final = (
    "BANK_COMMIT_FAILED",
    "BANK_EXECUTE_FAILED",
    "BANK_PREPARE_FAILED",
    "COMPLIANCE_FAILED",
    "CUT_OFF_MISSED",
    "DLT_COMMIT_FAILED",
    "DLT_EXECUTE_FAILED",
    "DLT_PREPARE_FAILED",
    "DLT_REVERSE_FAILED",
    "JOURNAL_CHAIN_FROZEN",
    "JOURNAL_CHAIN_INVALID",
    "JOURNAL_CHAIN_SEALED",
    "JOURNAL_PLAN_DIFFERS",
    "LEG_REFUSED",
    "LIQUIDITY_DENIED",
    "NOTARY_COMMIT_FAILED",
    "NOTARY_PREPARE_FAILED",
    "REVERSAL_REFUSED",
    "REVERSAL_UNSUPPORTED",
)
_SYSTEM: Final = (
    "ABORTED",
    "ALREADY_EXISTS",
    "ANSWER_MALFORMED",
    "CANCELLED",
    "DATABASE_UNAVAILABLE",
    "DATA_LOSS",
    "DRAINING",
    "FAILED_PRECONDITION",
    "INTERNAL",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "OUT_OF_RANGE",
    "PAYLOAD_KEY_UNKNOWN",
    "RESOURCE_EXHAUSTED",
    "SIGNING_KEY_REFUSED",
    "UNAVAILABLE",
    "UNIMPLEMENTED",
    "UNKNOWN",
)

#: Every code that a rejection, a refusal, a check, the journal or a failed call can give, and its category. gRPC codes are those of a whole call: they
#: say nothing of any leg, whatever they are called.
CATEGORIES: Final[Mapping[str, Category]] = {
    **dict.fromkeys(_TIMING, Category.TIMING),
    **dict.fromkeys(_DATA, Category.DATA),
    **dict.fromkeys(_CONTROL, Category.CONTROL),
    **dict.fromkeys(_BUSINESS, Category.BUSINESS),
    **dict.fromkeys(_SYSTEM, Category.SYSTEM),
}

#: Whoever holds the plan now goes on; who does not has nothing to call anybody for.
OVERTAKEN: Final = frozenset({"EPOCH_STALE"})
#: Trying again cannot help, and may hide who is wrong: a person is called the first time.
AT_ONCE: Final = frozenset(
    {"JOURNAL_CONFLICT", "PARTICIPANT_CONTRADICTS", "PARTICIPANT_REPORT", "PARTICIPANT_SIGNATURE", "PLAN_KEY_SEALED"}
)


def classify(code: str) -> Category:
    """What kind of thing a code is; one that nobody knows is a matter for a person, after some tries."""
    return CATEGORIES.get(code, Category.CONTROL)


def route(category: Category, code: str, decision: Decision | None, attempts: int) -> Route:
    """What is done about an exception that a plan met for the `attempts`-th time, given what is decided about it. Total."""
    match category:
        case Category.TIMING | Category.SYSTEM:
            return Route.RETRY
        case Category.DATA:
            return Route.ABORT if decision is None else Route.DEAD_LETTER
        case Category.BUSINESS:
            return Route.ABORT if decision is None else Route.PARK
        case Category.CONTROL if code in OVERTAKEN:
            return Route.RETRY
        case Category.CONTROL if code in AT_ONCE:
            return Route.PARK
        case Category.CONTROL:
            return Route.RETRY if attempts < ATTEMPTS_MAX else Route.PARK
        case unreachable:
            assert_never(unreachable)


def routed(code: str, decision: Decision | None, attempts: int) -> Route:
    """`route`, for a code whose category is as it is classified."""
    return route(classify(code), code, decision, attempts)
