"""How much of the coordinator one client, and one plan, may take up. Pure; every refusal names its quota and says when to come again."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import grpc
from pydantic import BaseModel, ConfigDict, Field

from lockstep_kit.errors import LockstepError
from lockstep_kit.rpc import buckets
from lockstep_kit.rpc.buckets import Bucket, Rate
from lockstep_kit.statements import Gate, GateStatement, Verdict

#: Plans settle in seconds: a client at its limit of open plans comes again then.
_OPEN_RETRY: Final = timedelta(seconds=5)
#: Approvals that ran out may be given anew, so their number needs a limit; a refusal, a cancel and a validation are never turned away.
_REPEATED: Final = frozenset({Gate.APPROVE, Gate.RELEASE})


class QuotaSettings(BaseModel):
    """What one client, and one plan, may take up."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    open_plans_max: int = Field(default=5_000, ge=1, description="plans of one client that are not CLOSED")
    plans_per_minute: float = Field(
        default=1_200.0, gt=0, description="plans that one client creates, a minute's worth of them at once after a pause"
    )
    gate_signatures_max: int = Field(default=64, ge=8, description="signatures that are kept of one plan's gates")
    plan_watches_max: int = Field(
        default=16, ge=1, description="open watches of one client on one plan, and on all plans, at a replica"
    )
    plan_requests_per_second: float = Field(
        default=100.0, gt=0, description="calls of one client about one plan, at a replica; ten seconds' worth of them at once"
    )

    @property
    def creation(self) -> Rate:
        """How fast plans are created."""
        return Rate(self.plans_per_minute / 60.0, max(self.plans_per_minute, 1.0))


def unspent(settings: QuotaSettings, now: datetime) -> Bucket:
    """What a client that never created a plan has."""
    return buckets.full(settings.creation, now.timestamp())


def admit_plan(settings: QuotaSettings, open_plans: int, unspent_then: Bucket, now: datetime) -> Bucket:
    """What the client has left once it has created one more plan.

    Raises:
        LockstepError: QUOTA_OPEN_PLANS or QUOTA_PLANS_PER_MINUTE.
    """
    if open_plans >= settings.open_plans_max:
        message = f"this client has {settings.open_plans_max} plans open, which is its quota: let some settle first"
        raise exceeded("QUOTA_OPEN_PLANS", message, settings.open_plans_max, _OPEN_RETRY)
    left, wait = buckets.taken(unspent_then, settings.creation, 1.0, now.timestamp())
    if wait:
        message = f"this client may create {settings.plans_per_minute:g} plans a minute"
        raise exceeded("QUOTA_PLANS_PER_MINUTE", message, settings.plans_per_minute, timedelta(seconds=wait))
    return left


def admit_signature(settings: QuotaSettings, kept: int, statement: GateStatement) -> None:
    """One more signature of a plan's gate may be kept.

    Raises:
        LockstepError: QUOTA_GATE_SIGNATURES.
    """
    if statement.gate in _REPEATED and statement.verdict is Verdict.APPROVE and kept >= settings.gate_signatures_max:
        message = (
            f"{settings.gate_signatures_max} signatures are kept of this plan, which is its quota: cancel it, and create another"
        )
        raise exceeded("QUOTA_GATE_SIGNATURES", message, settings.gate_signatures_max, None)


def exceeded(reason: str, message: str, quota: float, retry_after: timedelta | None) -> LockstepError:
    """A quota is used up; nothing was changed."""
    return LockstepError(grpc.StatusCode.RESOURCE_EXHAUSTED, reason, message, {"quota": f"{quota:g}"}, retry_after=retry_after)
