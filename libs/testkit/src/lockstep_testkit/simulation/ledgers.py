"""The worlds outside, which outlive every crash: a chain with an escrow contract, a bank with holds, a registry of notarisations.

The chain does what contracts/src/SettlementEscrow.sol does, block by block: what was sent may be dropped or get stuck, and blocks may be taken back
until they are final. The bank answers each question, and its answers get lost, come twice, come late, and now and then contradict one another.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from lockstep_testkit.simulation.loop import VirtualLoop

#: Blocks on top of one that make it final; a reorganisation is never deeper.
FINAL_DEPTH: Final = 9
BLOCK_SECONDS: Final = 0.25
#: Blocks that are kept to be taken back.
_UNDOABLE: Final = FINAL_DEPTH


class Slot(StrEnum):
    """Where a leg stands in the escrow, or its digest in the registry."""

    NONE = "NONE"
    PREPARED = "PREPARED"
    COMMITTED = "COMMITTED"
    ABORTED = "ABORTED"


@dataclass(frozen=True, slots=True)
class Call:
    """A transaction."""

    #: prepare, commit or abort.
    action: str
    #: Leg that it is about.
    leg: str
    #: What the leg moves: payer, payee, minor units. Empty where nothing is.
    terms: tuple[str, str, int] | None
    #: prepare: what the key must hash to.
    lock: bytes = b""
    #: commit: the key.
    key: bytes = b""


@dataclass(slots=True)
class Contract:
    """What the contract holds after some block."""

    #: Where each leg stands; its terms and its lock.
    slots: dict[str, tuple[Slot, tuple[str, str, int] | None, bytes]] = field(default_factory=dict)
    #: Tokens that belong to whom; the contract's own are under "escrow".
    balances: dict[str, int] = field(default_factory=dict)

    def copy(self) -> Contract:
        """The same, apart."""
        return Contract(dict(self.slots), dict(self.balances))

    def status(self, leg: str) -> Slot:
        """Where a leg stands."""
        return self.slots[leg][0] if leg in self.slots else Slot.NONE

    def apply(self, call: Call) -> bool:
        """Run a transaction; whether it changed anything. What contradicts the leg's status reverts."""
        status, terms, lock = self.slots.get(call.leg, (Slot.NONE, call.terms, call.lock))
        match call.action, status:
            case "prepare", Slot.NONE:
                if call.terms is not None and not self._pay(call.terms[0], "escrow", call.terms[2]):
                    return False
                self.slots[call.leg] = Slot.PREPARED, call.terms, call.lock
            case "commit", Slot.PREPARED:
                if lock and hashlib.sha256(call.key).digest() != lock:
                    return False
                if terms is not None:
                    self._pay("escrow", terms[1], terms[2])
                self.slots[call.leg] = Slot.COMMITTED, terms, lock
            case "abort", Slot.PREPARED:
                if terms is not None:
                    self._pay("escrow", terms[0], terms[2])
                self.slots[call.leg] = Slot.ABORTED, terms, lock
            case "abort", Slot.NONE:
                self.slots[call.leg] = Slot.ABORTED, None, b""
            case _:
                return False
        return True

    def _pay(self, payer: str, payee: str, units: int) -> bool:
        if self.balances.get(payer, 0) < units:
            return False
        self.balances[payer] -= units
        self.balances[payee] = self.balances.get(payee, 0) + units
        return True


@dataclass(slots=True)
class ChainTrouble:
    """What goes wrong on the chain; changed while a simulation runs."""

    #: Share of the transactions that are forgotten, and of those that get stuck for a while.
    dropped: float = 0.0
    stuck: float = 0.0
    #: Share of the blocks after which some are taken back.
    reorganised: float = 0.0
    #: No block is made.
    halted: bool = False


class Chain:
    """Blocks, what waits to be in one, and what the contract holds at the head and at the last final block."""

    def __init__(self, loop: VirtualLoop, chance: random.Random, balances: dict[str, int], counts: dict[str, int]) -> None:
        self.head: Contract = Contract({}, dict(balances))
        self.final: Contract = self.head
        self.height = 0
        self.trouble: Final = ChainTrouble()
        #: What took effect for good, in order.
        self.effects: list[Call] = []
        self._loop = loop
        self._chance = chance
        self._counts = counts
        #: Of each block that can be taken back: its transactions, the contract before it, and what had effect.
        self._blocks: list[tuple[list[Call], Contract, list[Call]]] = []
        self._waiting: list[tuple[float, Call]] = []

    def send(self, call: Call) -> None:
        """Take a transaction; it may be forgotten, or wait."""
        if any(each == call for _, each in self._waiting):
            return
        if self._chance.random() < self.trouble.dropped:
            self._count("transaction_dropped")
            return
        due = self._loop.time()
        if self._chance.random() < self.trouble.stuck:
            self._count("transaction_stuck")
            due += self._chance.random() * 20
        self._waiting.append((due, call))

    def mine(self) -> None:
        """Make a block, perhaps instead of some that were there."""
        if self.trouble.halted:
            return
        if self._blocks and self._chance.random() < self.trouble.reorganised:
            self._take_back(self._chance.randint(1, min(FINAL_DEPTH - 1, len(self._blocks))))
        now = self._loop.time()
        calls = [call for due, call in self._waiting if due <= now]
        self._waiting = [(due, call) for due, call in self._waiting if due > now]
        before = self.head
        if calls:
            self._chance.shuffle(calls)
            self.head = before.copy()
        had = [call for call in calls if self.head.apply(call)]
        self._blocks.append((calls, before, had))
        self.height += 1
        if len(self._blocks) > _UNDOABLE:
            _, _, effects = self._blocks.pop(0)
            self.effects.extend(effects)
            self.final = self._blocks[0][1]

    def _take_back(self, depth: int) -> None:
        self._count("blocks_taken_back")
        for _ in range(depth):
            calls, before, _ = self._blocks.pop()
            self.head = before
            self.height -= 1
            now = self._loop.time()
            # What was in them comes again, perhaps in another order, perhaps not at all.
            self._waiting.extend(
                (now + self._chance.random(), call) for call in calls if self._chance.random() > self.trouble.dropped
            )

    def _count(self, kind: str) -> None:
        self._counts[kind] = self._counts.get(kind, 0) + 1


class Standing(StrEnum):
    """Where a payment stands at the bank."""

    UNKNOWN = "UNKNOWN"
    HELD = "HELD"
    REJECTED = "REJECTED"
    BOOKED = "BOOKED"
    CANCELLED = "CANCELLED"


@dataclass(slots=True)
class Payment:
    """A payment in the bank's book."""

    #: Debtor's account, creditor's account, minor units.
    terms: tuple[str, str, int]
    #: Where it stands.
    standing: Standing
    #: What a key must hash to.
    lock: bytes
    #: The bank lets go of the hold by itself after this moment of the loop's clock; None: never.
    until: float | None = None
    #: Bookings of it.
    bookings: int = 0


class Bank:
    """Accounts with holds, and payments that are known by their UETR."""

    def __init__(self, loop: VirtualLoop, chance: random.Random, balances: dict[str, int]) -> None:
        self._loop = loop
        self.balances: Final = dict(balances)
        self.held: Final[dict[str, int]] = {}
        self.payments: Final[dict[str, Payment]] = {}
        #: Share of the payments that it refuses to hold, and of the releases that it refuses to execute.
        self.refuses = 0.0
        self._chance = chance

    def hold(self, uetr: str, terms: tuple[str, str, int], lock: bytes, until: float | None) -> Standing:
        """Place a hold, once."""
        if uetr in self.payments:
            return self.status(uetr)
        debtor, _, units = terms
        enough = self.balances.get(debtor, 0) - self.held.get(debtor, 0) >= units
        standing = Standing.HELD if enough and self._chance.random() >= self.refuses else Standing.REJECTED
        if standing is Standing.HELD:
            self.held[debtor] = self.held.get(debtor, 0) + units
        self.payments[uetr] = Payment(terms, standing, lock, until)
        return standing

    def book(self, uetr: str, key: bytes) -> Standing:
        """Execute a held payment, once, with its key."""
        payment = self.payments.get(uetr)
        if payment is None:
            return Standing.UNKNOWN
        self.status(uetr)
        if payment.standing is Standing.HELD and hashlib.sha256(key).digest() == payment.lock:
            debtor, creditor, units = payment.terms
            self.held[debtor] -= units
            self.balances[debtor] -= units
            self.balances[creditor] = self.balances.get(creditor, 0) + units
            payment.standing = Standing.BOOKED
            payment.bookings += 1
        return payment.standing

    def cancel(self, uetr: str) -> Standing:
        """Release a held payment; one that never came is refused from now on."""
        payment = self.payments.get(uetr)
        if payment is None:
            self.payments[uetr] = Payment(("", "", 0), Standing.CANCELLED, b"")
            return Standing.CANCELLED
        if payment.standing is Standing.HELD:
            debtor, _, units = payment.terms
            self.held[debtor] -= units
            payment.standing = Standing.CANCELLED
        return payment.standing

    def status(self, uetr: str) -> Standing:
        """Where a payment stands; a hold that has run out is let go of."""
        payment = self.payments.get(uetr)
        if payment is None:
            return Standing.UNKNOWN
        if payment.standing is Standing.HELD and payment.until is not None and self._loop.time() > payment.until:
            return self.cancel(uetr)
        return payment.standing
