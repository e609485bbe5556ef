"""What the notary has on the chain besides plans with entries of their own: anchors, plans in batches, records of escalations. Puts them together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lockstep_chain.legs import ContractOperations
from lockstep_chain.ports import Block, Evm
from lockstep_chain.sender import OnSettled, SettledTransaction, TransactionMachine
from lockstep_kit import failpoints
from lockstep_kit.db import Connection, Database
from lockstep_kit.loops import Loop
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.values import dataclass
from notary.anchors import plan_store, queue
from notary.anchors.batches import BatchCloser, BatchJudge, NotaryOperations
from notary.anchors.carrier import AnchorCarrier, SettledAnchors
from notary.escalations import carrier as escalation_carrier
from notary.escalations import store as escalation_store
from notary.escalations.carrier import EscalationCarrier
from notary.operations import RegistryBook

FAILPOINTS: Final = (
    "notary.anchor.judge.in_tx",
    "notary.anchor.judge.after_commit",
    "notary.batch.close.in_tx",
    "notary.batch.close.after_commit",
)


def declare_failpoints() -> None:
    """Make them known; the notary's main does so when it is imported."""
    failpoints.declare(*FAILPOINTS)


@dataclass(frozen=True, slots=True)
class Anchors:
    """`Beside` of the notary."""

    #: Its database.
    db: Database
    #: The registry.
    book: RegistryBook
    #: Leaves of a batch at the most.
    batch_leaves_max: int
    #: How long the first leaf of a batch waits for others.
    batch_seconds: float

    def operations(self, entries: ContractOperations) -> NotaryOperations:
        """The notary's operations."""
        return NotaryOperations(self.book, entries)

    async def foresee(self, evm: Evm, settled: Sequence[SettledTransaction], final: Block | None) -> OnSettled:
        """Note what became of the transactions that carry roots, and of those that carry records of escalations."""
        anchors = SettledAnchors(self.db, evm, self.book.contract)
        reading = None if final is None else await anchors.read(settled, final)

        async def store(tx: Connection, told: Sequence[SettledTransaction]) -> None:
            await anchors.on_settled(tx, told, reading)
            await escalation_carrier.on_settled(tx, self.book.contract, told)

        return store

    def loops(self, engine: ParticipantEngine, machine: TransactionMachine, poll_seconds: float) -> Sequence[Loop]:
        """Close batches, carry roots, answer legs; carry what is said of escalations."""
        closer = BatchCloser(self.db, self.batch_leaves_max, self.batch_seconds)
        closing = Loop("anchor.close", closer.round, poll_seconds=poll_seconds)
        carrying = Loop("anchor.carry", AnchorCarrier(self.db, machine, self.book.contract).round, poll_seconds=poll_seconds)
        judging = Loop("anchor.judge", BatchJudge(self.db, engine, self.book).round, poll_seconds=poll_seconds)
        escalating = Loop(
            "escalation.carry", EscalationCarrier(self.db, machine, self.book.contract).round, poll_seconds=poll_seconds
        )
        self.db.listen(escalation_store.CHANNEL, escalating.wake)
        self.db.listen(plan_store.CHANNEL, closing.wake)
        self.db.listen(queue.CHANNEL, carrying.wake)
        self.db.listen(queue.PLACED_CHANNEL, judging.wake)
        return closing, carrying, judging, escalating
