"""What the checker judges: one snapshot of the outside world, of every database and of what clients were told. Values only.

The judges take the outside world's word for what happened (the chain, the bank's book), the participants' and the journal's own rows for why, and the
coordinator's rows only as one record among others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property

from lockstep_client.journal_chain import Entry
from lockstep_contracts.escrow import LegStatus, leg_key
from lockstep_contracts.events import Event
from lockstep_contracts.notary import PlanStatus
from lockstep_kit.ids import Digest, LegId, PlanId, uetr
from lockstep_kit.instruments import IssueInstrument
from lockstep_kit.participant.records import LegRecord
from lockstep_kit.plan import CreditTransfer, Leg, PlanHeader, TokenTransfer
from lockstep_kit.registry import Registry
from lockstep_kit.statements import GateSignature
from lockstep_testkit.checker.bank import BankBook


class Effect(StrEnum):
    """What the outside world shows of a settling leg."""

    #: Nothing was ever begun.
    NONE = "NONE"
    #: Value is held for it.
    HELD = "HELD"
    #: Value moved.
    EXECUTED = "EXECUTED"
    #: A hold ended and its owner has the value back, or the leg was barred, or refused, before it held anything.
    RELEASED = "RELEASED"
    #: Value moved, and moved back.
    REVERSED = "REVERSED"


@dataclass(frozen=True, slots=True)
class Transfer:
    """One ERC-20 Transfer event."""

    #: Lower-case address.
    token: str
    #: Lower-case address; zero when minted.
    sender: str
    #: Lower-case address; zero when burnt.
    recipient: str
    #: Minor units.
    amount: int
    #: Transaction that made it.
    transaction_hash: bytes


@dataclass(frozen=True, slots=True)
class EscrowEvent:
    """One event of the escrow about a leg."""

    #: The leg's name on the contract.
    leg_key: bytes
    #: What happened.
    event: Event
    #: Transaction that made it.
    transaction_hash: bytes


@dataclass(frozen=True, slots=True)
class TokenBook:
    """What the chain says of one token."""

    #: Lower-case address.
    token: str
    #: Minor units in existence.
    supply: int
    #: Lower-case address -> balance, of everybody who ever had any.
    balances: Mapping[str, int]
    #: Minor units that the escrow says it holds for prepared legs.
    locked: int
    #: Minor units that the escrow says wait to be claimed.
    claimable: int


@dataclass(frozen=True, slots=True)
class ChainBook:
    """What the chain says."""

    #: Lower-case address of the escrow.
    escrow: str
    #: Every token in use.
    tokens: tuple[TokenBook, ...]
    #: Every transfer of them, in order.
    transfers: tuple[Transfer, ...]
    #: Every event of the escrow about a leg, in order.
    events: tuple[EscrowEvent, ...]
    #: Leg key -> status, of every leg that an event or a plan names.
    statuses: Mapping[bytes, LegStatus]
    #: Plan digest -> status at the notary's registry, of every known plan.
    notarised: Mapping[Digest, PlanStatus]


@dataclass(frozen=True, slots=True)
class TransitionRow:
    """A row of the coordinator's transition table."""

    #: Dense from 1.
    transition_no: int
    #: State left; "" for the first.
    left: str
    #: State entered.
    entered: str
    #: Event of the journal that records it.
    journal_sequence: int


@dataclass(frozen=True, slots=True)
class TicketRow:
    """A row of the coordinator's escalations."""

    #: UPPER_SNAKE.
    reason: str
    #: Leg that it is about, or "".
    leg_id: str
    #: When two operators closed it; None: open.
    resolved_at: datetime | None


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event that the coordinator recorded for the journal."""

    #: Place in the plan's chain.
    sequence: int
    #: Event type.
    type: str
    #: RFC 8785 bytes.
    payload: bytes


@dataclass(frozen=True)
class PlanRow:
    """A plan as the coordinator's database has it, with its papers."""

    #: Head of the plan.
    header: PlanHeader
    #: Its legs, in plan order.
    legs: tuple[Leg, ...]
    #: One of the twelve states.
    state: str
    #: COMMIT, ABORT, DELEGATED; "" while undecided.
    decision: str
    #: Leg that decides or decided, or "".
    delegate: str
    #: When the release gate opened.
    decided_at: datetime | None
    #: COMMITTED, ABORTED, REVERSED, MIXED; "" while unknown.
    outcome: str
    #: Its transitions, in order.
    transitions: tuple[TransitionRow, ...]
    #: Its gates' signatures, in the order of signing, with when each was accepted.
    gates: tuple[tuple[GateSignature, datetime], ...]
    #: Its escalations.
    tickets: tuple[TicketRow, ...]
    #: What it recorded for the journal.
    events: tuple[RecordedEvent, ...]
    #: Why its journal takes nothing more, or "".
    frozen: str = ""

    @property
    def plan_id(self) -> PlanId:
        """The plan."""
        return self.header.plan_id

    @cached_property
    def digest(self) -> Digest:
        """Its digest, worked out from its head."""
        return self.header.digest

    @property
    def settling(self) -> tuple[Leg, ...]:
        """The legs that move value."""
        return tuple(leg for leg in self.legs if leg.settling)

    @property
    def escalated(self) -> bool:
        """Whether a person is called, or was and settled it outside for ever."""
        return self.outcome == "MIXED" or any(each.resolved_at is None for each in self.tickets)

    @property
    def ended(self) -> bool:
        """Whether nothing more is to happen by itself."""
        return self.state == "CLOSED"


@dataclass(frozen=True, slots=True)
class Told:
    """The end of a plan as a client heard it."""

    #: The plan.
    plan_id: PlanId
    #: How it was heard: "get", "watch".
    how: str
    #: State that was told.
    state: str
    #: Outcome that was told, or "".
    outcome: str


@dataclass(frozen=True, slots=True)
class Probe:
    """A command with an old epoch that was sent to a participant, and what became of it."""

    #: To whom it went.
    participant: str
    #: About which leg.
    plan_id: PlanId
    #: The leg.
    leg_id: LegId
    #: PREPARE, COMMIT, ABORT or REVERSE.
    command: str
    #: Verdict of the answer.
    verdict: str
    #: Reason of a rejection, or "".
    reason: str
    #: The leg's row before.
    before: LegRecord | None
    #: The leg's row after.
    after: LegRecord | None


@dataclass(frozen=True)
class Evidence:
    """Everything, as it was read at one quiet moment."""

    #: Whose keys are whose.
    registry: Registry
    #: The coordinator's plans, by id.
    plans: Mapping[PlanId, PlanRow]
    #: Participant -> its legs' rows.
    legs: Mapping[str, tuple[LegRecord, ...]]
    #: Plan -> its chain in the journal, in order.
    chains: Mapping[PlanId, tuple[Entry, ...]]
    #: Place of each entry in the log over all chains, in order.
    positions: tuple[int, ...]
    #: The chain.
    chain: ChainBook
    #: The bank.
    bank: BankBook
    #: What clients were told of plans' ends.
    told: tuple[Told, ...] = ()
    #: Old epochs that were tried.
    probes: tuple[Probe, ...] = ()
    #: Plans that are meant to be at rest before their end: they wait for a person.
    resting: frozenset[PlanId] = field(default_factory=frozenset)
    #: Plans that are judged one by one; None: all. What is true of all plans together is judged in any case.
    focus: frozenset[PlanId] | None = None
    #: What the bank-gateway's own audit finds wrong with its ledger: entries, links, balances, and where the money of each leg stands.
    ledger_findings: tuple[str, ...] = ()
    #: What the event-journal's own audit finds wrong with its log: the tree over all entries, its checkpoints, and entries that are in none.
    log_findings: tuple[str, ...] = ()

    def judged(self, plan_id: PlanId) -> bool:
        """Whether a plan is judged by itself."""
        return self.focus is None or plan_id in self.focus

    @cached_property
    def judged_plans(self) -> tuple[PlanRow, ...]:
        """The plans that are judged one by one."""
        return tuple(plan for plan in self.plans.values() if self.judged(plan.plan_id))

    @cached_property
    def judged_rows(self) -> tuple[tuple[str, LegRecord], ...]:
        """The rows of their legs, with whose they are."""
        return tuple((name, row) for name, rows in self.legs.items() for row in rows if self.judged(row.plan_id))

    @cached_property
    def leg_keys(self) -> dict[bytes, tuple[PlanRow, Leg]]:
        """A leg's name on the escrow -> the leg, of every plan."""
        return {leg_key(plan.digest, leg.leg_id): (plan, leg) for plan in self.plans.values() for leg in plan.legs}

    @cached_property
    def uetrs(self) -> dict[str, tuple[PlanRow, Leg]]:
        """A payment's reference -> the leg, of every plan."""
        return {
            uetr(plan.plan_id, leg.leg_id): (plan, leg)
            for plan in self.plans.values()
            for leg in plan.legs
            if isinstance(leg.terms, CreditTransfer)
        }

    @cached_property
    def instruments(self) -> dict[str, tuple[PlanRow, Leg]]:
        """An undertaking's UETR -> the leg, of every plan."""
        return {
            uetr(plan.plan_id, leg.leg_id): (plan, leg)
            for plan in self.plans.values()
            for leg in plan.legs
            if isinstance(leg.terms, IssueInstrument)
        }

    def effect(self, plan: PlanRow, leg: Leg) -> Effect:
        """What the outside world shows of a settling leg."""
        match leg.terms:
            case TokenTransfer():
                return _ON_CHAIN[self.chain.statuses.get(leg_key(plan.digest, leg.leg_id), LegStatus.NONE).name]
            case CreditTransfer():
                payment = self.bank.payments.get(uetr(plan.plan_id, leg.leg_id))
                return Effect.NONE if payment is None else _AT_BANK[payment.state]
            case IssueInstrument():
                undertaking = self.bank.undertakings.get(uetr(plan.plan_id, leg.leg_id))
                return Effect.NONE if undertaking is None else _UNDERTAKEN[undertaking.state]
            case _:
                raise ValueError(f"leg {leg.leg_id} moves no value")

    def record(self, plan_id: PlanId, leg_id: LegId) -> tuple[str, LegRecord] | None:
        """The participant that knows a leg, and its row."""
        return self._records.get((plan_id, leg_id))

    @cached_property
    def _records(self) -> dict[tuple[PlanId, LegId], tuple[str, LegRecord]]:
        return {row.key_of_leg: (name, row) for name, rows in self.legs.items() for row in rows if row.fence.phase is not None}


_ON_CHAIN = {
    "NONE": Effect.NONE,
    "PREPARED": Effect.HELD,
    "COMMITTED": Effect.EXECUTED,
    "ABORTED": Effect.RELEASED,
    "REVERSED": Effect.REVERSED,
}
_UNDERTAKEN = {
    "TOMBSTONED": Effect.RELEASED,
    "REJECTED": Effect.RELEASED,
    "LODGED": Effect.HELD,
    "ISSUED": Effect.EXECUTED,
    "WITHDRAWN": Effect.RELEASED,
}
_AT_BANK = {
    "TOMBSTONED": Effect.RELEASED,
    "REJECTED": Effect.RELEASED,
    "HELD": Effect.HELD,
    "SETTLED": Effect.EXECUTED,
    "CANCELLED": Effect.RELEASED,
    "EXPIRED": Effect.RELEASED,
}


@dataclass(frozen=True, slots=True)
class Violation:
    """One invariant that does not hold."""

    #: I1 to I8.
    invariant: str
    #: Plan that it is about, or "".
    plan_id: str
    #: Leg that it is about, or "".
    leg_id: str
    #: One sentence.
    sentence: str
