"""The participants' own work over the outside worlds: real operations of the shared engine, whose outside is a `Chain` or a `Bank`.

They keep no rows of their own. What is owed is read from the legs' phases and asked for again and again: both outside worlds know a leg by one name, and
do nothing twice. Nothing is found but what was read in the outside world, at finality; an answer that got lost says nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from lockstep_kit.db import is_transient
from lockstep_kit.fence import Finding, Phase
from lockstep_kit.ids import sha256, uetr
from lockstep_kit.loops import Loop
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.ports import Capabilities, Completion, LegWork
from lockstep_kit.plan import CreditTransfer, LegKind, Notarisation, TokenTransfer
from lockstep_kit.statements import BankEvidence, ChainEvidence, Promise, PromiseKind, Refusal
from lockstep_testkit.factories import CHAIN
from lockstep_testkit.simulation.ledgers import Bank, Call, Chain, Slot, Standing
from lockstep_testkit.simulation.loop import VirtualLoop
from lockstep_testkit.simulation.memory import EPOCH

if TYPE_CHECKING:
    from lockstep_kit.db import Connection, Database

#: How often what is owed is looked at.
LOOK_SECONDS: Final = 0.8
WORKING: Final = (Phase.PREPARING, Phase.COMMITTING, Phase.ABORTING)
#: A soft promise stands for so much longer than it must.
SPARE: Final = timedelta(seconds=2)


@dataclass(slots=True)
class LineTrouble:
    """What goes wrong between a gateway and its outside world; changed while a simulation runs."""

    #: Share of the questions that never arrive, and of the answers.
    lost: float = 0.0
    #: Share of the questions that arrive again later, and how much later at the most.
    doubled: float = 0.0
    doubled_seconds_max: float = 20.0
    #: Share of the answers that say something else: another status, amount or reference.
    contradicts: float = 0.0
    #: Share of the legs that are voted NO.
    refused: float = 0.0
    #: What was done, by kind.
    counts: dict[str, int] = field(default_factory=dict)

    def clear(self) -> None:
        """Let every question and every answer through."""
        self.lost = self.doubled = self.contradicts = self.refused = 0.0

    def count(self, kind: str) -> None:
        """Note that something was done."""
        self.counts[kind] = self.counts.get(kind, 0) + 1


class LineLost(ConnectionError):
    """A question or its answer got lost."""


class _Working:
    """What both kinds of operations share: they look at what is owed, and report what they find."""

    def __init__(self, chance: random.Random, trouble: LineTrouble, loop: VirtualLoop) -> None:
        self.chance: Final = chance
        self.trouble: Final = trouble
        self.loop: Final = loop
        self.begun: Final = asyncio.Event()

    async def begin(self, tx: Connection, work: Sequence[LegWork], now: datetime) -> Sequence[Completion]:
        """Nothing is done inside the transaction."""
        del tx, work, now
        return ()

    def wake(self) -> None:
        """Look at once."""
        self.begun.set()

    def outside(self, question: Callable[[], Standing | Slot]) -> Standing | Slot:
        """Ask the outside world.

        Raises:
            LineLost: the question or the answer got lost.
        """
        trouble, chance = self.trouble, self.chance
        if chance.random() < trouble.lost:
            trouble.count("question_lost")
            raise LineLost
        if chance.random() < trouble.doubled:
            trouble.count("question_doubled")
            self.loop.call_later(chance.random() * trouble.doubled_seconds_max, question, context=contextvars.Context())
        answer = question()
        if chance.random() < trouble.lost:
            trouble.count("answer_lost")
            raise LineLost
        return answer

    def look(self, work: LegWork, now: datetime) -> Completion | None:
        """Ask about one leg, go on with it, and say what is found."""
        raise AssertionError("each outside world has a look of its own")

    def phases(self) -> tuple[Phase, ...]:
        """Phases in which something is looked at."""
        return WORKING


def _found(
    work: LegWork,
    finding: Finding,
    *,
    promise: Promise | None = None,
    refusal: Refusal | None = None,
    evidence: ChainEvidence | BankEvidence | None = None,
) -> Completion:
    return Completion(work.plan_id, work.leg_id, finding, promise=promise, refusal=refusal, evidence=evidence)


class ChainOperations(_Working):
    """Locks, pays out and refunds in the escrow, or registers and finalises in the registry; judged at finality alone."""

    def __init__(self, kind: LegKind, chain: Chain, chance: random.Random, trouble: LineTrouble, loop: VirtualLoop) -> None:
        super().__init__(chance, trouble, loop)
        self._kind = kind
        self._chain = chain

    def capabilities(self) -> Capabilities:
        """What it can do."""
        return Capabilities((self._kind,), PromiseKind.GUARANTEED, None)

    def look(self, work: LegWork, now: datetime) -> Completion | None:
        """As `_Working.look`."""
        leg = f"{work.plan_id}/{work.leg_id}"
        terms = work.binding.leg.terms
        moved = (terms.payer, terms.payee, terms.amount.minor_units) if isinstance(terms, TokenTransfer) else None
        if work.phase is Phase.PREPARING:
            # Drawn from the leg, so that every look and every replica says the same.
            unwanted = sha256(f"refused {leg}".encode())[0] / 256 < self.trouble.refused
            late = unwanted or (work.hold_until is not None and now > work.hold_until)
            call = Call("abort" if late else "prepare", leg, None if late else moved, b"" if moved is None else work.binding.lock)
        elif work.phase is Phase.COMMITTING:
            call = Call("commit", leg, None, key=work.key)
        else:
            call = Call("abort", leg, None)
        status = self.outside(lambda: self._chain.final.status(leg))
        found = self._judge(work, Slot(status), leg, call.action)
        if found is None:
            self._send(call)
        return found

    def _send(self, call: Call) -> None:
        def send() -> Slot:
            self._chain.send(call)
            return Slot.NONE

        self.outside(send)

    def _judge(self, work: LegWork, status: Slot, leg: str, action: str) -> Completion | None:
        match work.phase, status:
            case Phase.PREPARING, Slot.PREPARED:
                # A tombstone comes too late: what was sent first has won.
                return _found(work, Finding.VOTED_YES, promise=Promise(PromiseKind.GUARANTEED, None))
            case Phase.PREPARING, Slot.ABORTED:
                return _found(work, Finding.VOTED_NO, refusal=Refusal("DLT_PREPARE_FAILED", "", "the leg was aborted on the chain"))
            case Phase.COMMITTING | Phase.ABORTING, Slot.COMMITTED:
                return _found(work, Finding.EXECUTED, evidence=self._evidence(leg, work, "Committed"))
            case Phase.COMMITTING, Slot.ABORTED:
                return _found(work, Finding.REFUSED, refusal=Refusal("DLT_EXECUTE_FAILED", "", "the leg was aborted on the chain"))
            case Phase.ABORTING, Slot.ABORTED:
                return _found(work, Finding.RELEASED, evidence=self._evidence(leg, work, "Aborted"))
            case _:
                return None

    def _evidence(self, leg: str, work: LegWork, status: str) -> ChainEvidence:
        terms = work.binding.leg.terms
        contract = terms.registry if isinstance(terms, Notarisation) else terms.escrow if isinstance(terms, TokenTransfer) else ""
        entry = sha256(leg.encode())
        return ChainEvidence(CHAIN, contract, entry, status, entry, self._chain.height, entry)


class BankOperations(_Working):
    """Holds, executes and cancels payments; what the bank says counts when its book says it too."""

    def __init__(
        self, bank: Bank, promise_max: timedelta | None, chance: random.Random, trouble: LineTrouble, loop: VirtualLoop
    ) -> None:
        super().__init__(chance, trouble, loop)
        self._bank = bank
        self._promise_max = promise_max

    def capabilities(self) -> Capabilities:
        """What it can do; holds lapse where there is a longest promise."""
        return Capabilities((LegKind.CREDIT_TRANSFER,), PromiseKind.GUARANTEED, self._promise_max)

    def phases(self) -> tuple[Phase, ...]:
        """A hold that runs out is looked at too."""
        return WORKING if self._promise_max is None else (*WORKING, Phase.PREPARED)

    def look(self, work: LegWork, now: datetime) -> Completion | None:
        """As `_Working.look`."""
        name, terms = uetr(work.plan_id, work.leg_id), work.binding.leg.terms
        if not isinstance(terms, CreditTransfer) or (work.hold_until is None and work.phase is Phase.PREPARING):
            raise AssertionError("the bank serves credit transfers")
        asked = self._question(work, name, terms, now)
        standing = Standing(self.outside(asked))
        if self.chance.random() < self.trouble.contradicts:
            self.trouble.count("answer_contradicts")
            said = self.chance.choice([each for each in Standing if each is not standing])
            # What is said must be in the book: the second answer decides.
            if Standing(self.outside(lambda: self._bank.status(name))) is not said:
                return None
        return self._judge(work, standing, name)

    def _question(self, work: LegWork, name: str, terms: CreditTransfer, now: datetime) -> Callable[[], Standing]:
        bank = self._bank
        match work.phase:
            case Phase.PREPARING:
                moved = (terms.debtor.iban, terms.creditor.iban, terms.amount.minor_units)
                until = self._until(work)
                unwanted = sha256(f"refused {name}".encode())[0] / 256 < self.trouble.refused
                if unwanted:
                    return lambda: bank.cancel(name)
                return lambda: bank.hold(name, moved, work.binding.lock, until)
            case Phase.COMMITTING if work.not_after is not None and now > work.not_after:
                return lambda: bank.status(name)
            case Phase.COMMITTING:
                return lambda: bank.book(name, work.key)
            case Phase.ABORTING:
                return lambda: bank.cancel(name)
            case _:
                return lambda: bank.status(name)

    def _until(self, work: LegWork) -> float | None:
        if self._promise_max is None or work.hold_until is None:
            return None
        return (work.hold_until + SPARE - EPOCH).total_seconds()

    def _judge(self, work: LegWork, standing: Standing, name: str) -> Completion | None:
        refusal = Refusal("BANK_PREPARE_FAILED", "AM04", "not enough money")
        evidence = BankEvidence("COBADEFF", name, standing.value)
        match work.phase, standing:
            case Phase.PREPARING, Standing.HELD:
                lapses = work.hold_until + SPARE if self._promise_max is not None and work.hold_until is not None else None
                return _found(work, Finding.VOTED_YES, promise=Promise(PromiseKind.GUARANTEED, lapses))
            case Phase.PREPARING, Standing.REJECTED | Standing.CANCELLED:
                return _found(work, Finding.VOTED_NO, refusal=refusal)
            case Phase.PREPARED, Standing.CANCELLED:
                return _found(work, Finding.LAPSED, refusal=Refusal("PROMISE_LAPSED", "", "the hold has run out"))
            case Phase.COMMITTING | Phase.ABORTING, Standing.BOOKED:
                return _found(work, Finding.EXECUTED, evidence=evidence)
            case Phase.COMMITTING, Standing.CANCELLED | Standing.REJECTED:
                return _found(work, Finding.REFUSED, refusal=Refusal("BANK_EXECUTE_FAILED", "", "the hold is gone"))
            case Phase.ABORTING, Standing.CANCELLED | Standing.REJECTED:
                return _found(work, Finding.RELEASED, evidence=evidence)
            case _:
                return None


def driving(db: Database, engine: ParticipantEngine, operations: _Working) -> Loop:
    """The loop that looks at everything that is owed."""

    async def drive() -> None:
        async with db.connection() as connection:
            owed = await engine.working(connection, operations.phases())
        if not owed:
            return
        now = await db.now()
        found = []
        for each in owed:
            try:
                completion = operations.look(each, now)
            except LineLost as error:
                if not is_transient(error):
                    raise
                continue
            if completion is not None:
                found.append(completion)
        if found:
            async with db.transaction() as tx:
                await engine.complete(tx, found)

    return Loop(f"{engine.name}.drive", drive, poll_seconds=LOOK_SECONDS, wake=operations.begun)
