"""What becomes of a statement about an escalation, and of its way onto the chain. Pure.

The first statement of a kind is the only one, and all that is said of an escalation is said of one plan: the tables and the registry both hold that.
Recording the same again changes nothing there, so that a transaction that was of no use is simply followed by another one.
"""

from __future__ import annotations

from collections.abc import Iterable

from lockstep_contracts.notary import EscalationKind, KnownEscalation
from lockstep_kit.ids import Digest, PlanId
from lockstep_kit.values import dataclass
from notary.anchors.judging import Again, Never, Order, Stands, Waits


@dataclass(frozen=True, slots=True)
class Statement:
    """One thing that is said of an escalation."""

    #: Plan that it is about.
    plan_id: PlanId
    #: SHA-256 of the plan's canonical bytes.
    plan_digest: Digest
    #: The escalation.
    escalation_id: str
    #: OPENED or RESOLVED.
    kind: EscalationKind
    #: SHA-256 of the canonical document.
    document_hash: Digest

    @property
    def place(self) -> tuple[str, EscalationKind]:
        """Where there is room for one."""
        return self.escalation_id, self.kind


def conflict(statement: Statement, known: Iterable[Statement]) -> str:
    """Why a statement cannot stand beside what is known, one sentence; "" where it can, or is known already."""
    for each in known:
        if each.escalation_id != statement.escalation_id:
            continue
        if (each.plan_id, each.plan_digest) != (statement.plan_id, statement.plan_digest):
            return f"the escalation is known to be of plan {each.plan_id}"
        if each.kind is statement.kind and each.document_hash != statement.document_hash:
            return f"{statement.kind.name} is known with the document {each.document_hash.hex()}"
    return ""


def judge(statement: Statement, found: KnownEscalation, order: Order | None) -> Stands | Again | Waits | Never:
    """What the registry's word on an escalation, read in a final block, means for a statement."""
    known = found.hash_of(statement.kind)
    if found.opened and found.plan_digest != statement.plan_digest:
        return Never(f"the registry knows the escalation of another plan, {found.plan_digest.hex()}")
    if known == statement.document_hash:
        return Stands()
    if known:
        return Never(f"the registry knows it as {statement.kind.name} with the document {known.hex()}")
    if statement.kind is EscalationKind.RESOLVED and not found.opened:
        # Its opening goes first, and is looked at like every other statement; once that is final, this one is due.
        return Waits()
    if order is None:
        return Again()
    if not (order.settled and order.rested):
        return Waits()
    return Again(order.skip_detail or order.skip_code or "the transaction is final, and the registry does not hold the record")
