"""Random call sequences against a model: whatever is called in whatever order, the books agree with it to the unit."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from contracts_world import SUPPLY, NodeError, Receipt, World, address

from lockstep_contracts import LegStatus, LegTerms, Side
from lockstep_contracts import escrow as calls
from lockstep_contracts.events import Aborted, Claimed, Committed, Executed, Prepared

STEPS = 250
LEGS = 12
SEEDS = (1, 2, 3, 4)
NONE, PREPARED, COMMITTED, ABORTED = LegStatus


@dataclass
class Model:
    """What the rules say, written down a second time and otherwise."""

    world: World
    token: str
    chance: random.Random
    payees: tuple[str, ...]
    legs: list[tuple[LegTerms, bytes]] = field(default_factory=list)
    status: dict[bytes, LegStatus] = field(default_factory=dict)
    announced: dict[bytes, tuple[Side, int]] = field(default_factory=dict)
    balances: Counter[str] = field(default_factory=Counter)
    claims: Counter[str] = field(default_factory=Counter)
    blocked: set[str] = field(default_factory=set)
    events: list[object] = field(default_factory=list)

    def attempt(self, act: Callable[[], Receipt]) -> bool:
        """Do it on the chain; whether it held."""
        try:
            self.events.extend(act().events)
        except NodeError:
            return False
        return True

    def pay(self, owner: str, amount: int) -> None:
        if owner in self.blocked:
            self.claims[owner] += amount
        else:
            self.balances[owner] += amount

    def end(self, terms: LegTerms, status: LegStatus) -> None:
        self.status[terms.leg_key] = status
        self.pay(terms.payee if status is COMMITTED else terms.payer, terms.amount)

    def can_take(self, terms: LegTerms) -> bool:
        return terms.payer not in self.blocked and self.world.chain.now() + 1 <= terms.prepare_by

    # -- the calls -----------------------------------------------------------------------------------------------------

    def prepare(self, terms: LegTerms, key: bytes) -> None:
        before, could = self.status[terms.leg_key], self.can_take(terms)
        held = self.attempt(lambda: self.world.prepare(terms))
        assert held is (before in (PREPARED, COMMITTED) or (before is NONE and could))
        if held and before is NONE:
            self.status[terms.leg_key] = PREPARED
            self.balances[terms.payer] -= terms.amount

    def commit(self, terms: LegTerms, key: bytes) -> None:
        before, right = self.status[terms.leg_key], self.chance.random() < 0.8
        held = self.attempt(lambda: self.world.commit(terms, key if right else bytes(32)))
        assert held is (right and before in (PREPARED, COMMITTED))
        if held and before is PREPARED:
            self.end(terms, COMMITTED)

    def abort(self, terms: LegTerms, key: bytes) -> None:
        before = self.status[terms.leg_key]
        assert self.attempt(lambda: self.world.abort(terms)) is (before is not COMMITTED)
        if before is PREPARED:
            self.end(terms, ABORTED)
        elif before is NONE:
            self.status[terms.leg_key] = ABORTED

    def tombstone(self, terms: LegTerms, key: bytes) -> None:
        before = self.status[terms.leg_key]
        held = self.attempt(lambda: self.world.operate(calls.encode_tombstone(terms.leg_key)))
        assert held is (before in (NONE, ABORTED))
        if held:
            self.status[terms.leg_key] = ABORTED

    def batch(self, terms: LegTerms, key: bytes) -> None:
        chosen = self.chance.choices(self.legs, k=4)
        keys = [key if self.chance.random() < 0.8 else bytes(32) for _, key in chosen]
        assert self.attempt(lambda: self.world.operate(calls.encode_try_commit_many([leg for leg, _ in chosen], keys)))
        for (leg, right), sent in zip(chosen, keys, strict=True):
            if self.status[leg.leg_key] is PREPARED and sent == right:
                self.end(leg, COMMITTED)

    def announce(self, terms: LegTerms, key: bytes) -> None:
        side = self.chance.choice(list(Side))
        held = self.attempt(lambda: self.world.arbitrate(calls.encode_announce(terms.leg_key, side)))
        assert held is (self.status[terms.leg_key] is PREPARED)
        if held and self.announced.get(terms.leg_key, (None, 0))[0] is not side:
            self.announced[terms.leg_key] = side, self.world.chain.now() + 7 * 86400

    def execute(self, terms: LegTerms, key: bytes) -> None:
        before = self.status[terms.leg_key]
        side, executable_at = self.announced.get(terms.leg_key, (Side.PAYEE, 2**63))
        result = COMMITTED if side is Side.PAYEE else ABORTED
        held = self.attempt(lambda: self.world.arbitrate(calls.encode_execute(terms)))
        due = terms.leg_key in self.announced and self.world.chain.now() >= executable_at
        assert held is (terms.leg_key in self.announced and (before is result or (before is PREPARED and due)))
        if held and before is PREPARED:
            self.end(terms, result)

    def claim(self, terms: LegTerms, key: bytes) -> None:
        owner = self.chance.choice([terms.payer, *self.payees])
        held = self.attempt(lambda: self.world.chain.send(self.world.admin, self.world.escrow, calls.encode_claim(self.token, owner)))
        assert held is (self.claims[owner] > 0 and owner not in self.blocked)
        if held:
            self.balances[owner] += self.claims.pop(owner)

    def block(self, terms: LegTerms, key: bytes) -> None:
        owner = self.chance.choice([terms.payer, *self.payees])
        self.blocked ^= {owner}
        self.world.set_flag("BlockingToken", self.token, "setBlocked", owner, owner in self.blocked)

    def wait(self, terms: LegTerms, key: bytes) -> None:
        self.world.chain.pass_time(self.chance.choice([60, 3600, 3 * 86400]))

    # -- the checks ----------------------------------------------------------------------------------------------------

    def assert_agrees(self) -> None:
        locked = sum(terms.amount for terms, _ in self.legs if self.status[terms.leg_key] is PREPARED)
        assert self.world.locked(self.token) == locked
        assert self.world.claimable_total(self.token) == self.claims.total()
        self.world.assert_conserved(self.token)

    def assert_ends_well(self) -> None:
        assert self.world.statuses([terms for terms, _ in self.legs]) == [self.status[terms.leg_key] for terms, _ in self.legs]
        for owner in (self.world.payer.address, *self.payees):
            assert self.world.balance(owner, self.token) == self.balances[owner]
            assert self.world.claimable(self.token, owner) == self.claims[owner]
        assert rebuilt(self.events) == (+self.claims, self.world.locked(self.token))


def rebuilt(events: list[object]) -> tuple[Counter[str], int]:
    """Claims and locked total as an auditor finds them, who has nothing but the escrow's events."""
    claims: Counter[str] = Counter()
    holds: dict[bytes, int] = {}
    for event in events:
        match event:
            case Prepared(leg_key=key, terms=terms):
                assert key not in holds
                holds[key] = terms.amount
            case Committed(payee=owner) | Aborted(payer=owner) | Executed(owner=owner):
                amount = holds.pop(event.leg_key)
                assert amount == event.amount
                claims[owner] += 0 if event.paid else amount
            case Claimed(owner=owner, amount=amount):
                claims[owner] -= amount
            case _:
                pass
    return +claims, sum(holds.values())


@pytest.mark.parametrize("seed", SEEDS)
def test_no_sequence_of_calls_breaks_the_books(world: World, seed: int) -> None:
    """After every call, balance equals locked plus claimable; at the end, statuses, balances and events tell one story."""
    chance = random.Random(seed)
    payees = tuple(address(f"payee {number}") for number in range(3))
    model = Model(world, world.hostile_token("BlockingToken"), chance, payees)
    model.balances[world.payer.address] = SUPPLY
    for _ in range(LEGS):
        replace_one(model, None)
    weights = {
        model.prepare: 6,
        model.commit: 4,
        model.abort: 2,
        model.tombstone: 1,
        model.batch: 2,
        model.announce: 3,
        model.execute: 3,
        model.claim: 3,
        model.block: 2,
        model.wait: 2,
    }
    for _ in range(STEPS):
        act = chance.choices(list(weights), list(weights.values()))[0]
        index = chance.randrange(len(model.legs))
        act(*model.legs[index])
        model.assert_agrees()
        if chance.random() < 0.1:
            replace_one(model, index)
    model.assert_ends_well()
    assert {status.name for status in model.status.values()} >= {"COMMITTED", "ABORTED"}


def replace_one(model: Model, index: int | None) -> None:
    """Bring a fresh leg into play, in place of one that is final."""
    terms, key = model.world.leg(
        token=model.token,
        payee=model.chance.choice(model.payees),
        amount=model.chance.randrange(1, 10**9),
        prepare_by=model.world.chain.now() + 10**7,
    )
    if index is None:
        model.legs.append((terms, key))
    elif model.status[model.legs[index][0].leg_key] in (COMMITTED, ABORTED):
        model.legs[index] = terms, key
    else:
        return
    model.status[terms.leg_key] = NONE
