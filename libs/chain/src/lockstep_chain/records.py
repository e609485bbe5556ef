"""What is stored of transactions, as values; and what a service is told of one that came to its end. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lockstep_chain.machine import Intent, Outbound, State
from lockstep_chain.ports import Log, Receipt
from lockstep_kit.values import dataclass


@dataclass(frozen=True, slots=True)
class Reference:
    """Who and what a transaction belongs to."""

    #: Row of the transaction.
    id: int
    #: The intent's key.
    idempotency_key: str
    #: What it is for.
    purpose: str
    #: Plan that it belongs to.
    plan_id: str | None
    #: Leg that it belongs to.
    leg_id: str | None
    #: W3C trace context of the call that caused it.
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Queued:
    """A transaction that waits for its nonce; locked."""

    #: Row of the transaction.
    id: int
    #: What it does.
    intent: Intent
    #: Whether it is to be dropped instead.
    cancel_requested: bool

    @property
    def reference(self) -> Reference:
        """Who and what it belongs to."""
        told = self.intent
        return Reference(self.id, told.idempotency_key, told.purpose, told.plan_id, told.leg_id, told.traceparent)


@dataclass(frozen=True, slots=True)
class InFlight:
    """A transaction that the chain has not settled."""

    #: Who and what it belongs to.
    reference: Reference
    #: Where it stands.
    outbound: Outbound
    #: Gas that it may use.
    gas_limit: int

    @property
    def id(self) -> int:
        """Row of the transaction."""
        return self.reference.id


@dataclass(frozen=True, slots=True)
class Ending:
    """How a transaction came to its end."""

    #: Whose end it is.
    reference: Reference
    #: A settled state.
    state: State
    #: What shows it; None for DEAD and MANUAL.
    receipt: Receipt | None = None
    #: Why, in one sentence; "" when there is nothing to say.
    detail: str = ""
    #: What a person needs to reconcile it.
    evidence: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class SettledTransaction:
    """A transaction that came to its end, as its service is told. Told once, in the database transaction that stores it.

    FINAL says that the transaction is in a final block with status 1, and nothing of the items of a batch: judge them by contract status or events.
    REVERTED, CANCELLED and DEAD say that it took no effect and never will. MANUAL says that nobody knows yet: a person reconciles.
    """

    #: Row of the transaction.
    id: int
    #: The intent's key.
    idempotency_key: str
    #: FINAL, REVERTED, CANCELLED, DEAD or MANUAL.
    state: State
    #: What it was for.
    purpose: str
    #: Plan that it belongs to.
    plan_id: str | None
    #: Leg that it belongs to.
    leg_id: str | None
    #: W3C trace context of the call that caused it.
    traceparent: str | None
    #: Hash of what was mined (32 bytes); b"" for DEAD and MANUAL.
    transaction_hash: bytes
    #: Height of its final block; None for DEAD and MANUAL.
    block_number: int | None
    #: Hash of that block (32 bytes); b"" for DEAD and MANUAL.
    block_hash: bytes
    #: Logs of its receipt, in order.
    logs: tuple[Log, ...]
    #: Gas used.
    gas_used: int
    #: Wei paid per unit of gas.
    effective_gas_price: int
    #: Why, in one sentence; "" for FINAL.
    detail: str
    #: MANUAL: what is known of who used the nonce. REVERTED: the revert data.
    evidence: Mapping[str, Any]

    @property
    def succeeded(self) -> bool:
        """Whether the transaction is in a final block with status 1."""
        return self.state is State.FINAL

    @classmethod
    def of(cls, ending: Ending) -> SettledTransaction:
        """What a service is told of an ending."""
        reference, receipt = ending.reference, ending.receipt
        return cls(
            id=reference.id,
            idempotency_key=reference.idempotency_key,
            state=ending.state,
            purpose=reference.purpose,
            plan_id=reference.plan_id,
            leg_id=reference.leg_id,
            traceparent=reference.traceparent,
            transaction_hash=receipt.transaction_hash if receipt else b"",
            block_number=receipt.block_number if receipt else None,
            block_hash=receipt.block_hash if receipt else b"",
            logs=receipt.logs if receipt else (),
            gas_used=receipt.gas_used if receipt else 0,
            effective_gas_price=receipt.effective_gas_price if receipt else 0,
            detail=ending.detail,
            evidence=ending.evidence or {},
        )
