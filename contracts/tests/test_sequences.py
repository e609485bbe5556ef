"""Random call sequences against a model: whatever is called in whatever order, the books agree with it to the unit."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from contracts_world import SUPPLY, NodeError, Receipt, World, address

from lockstep_contracts import LegStatus, LegTerms, Side
from lockstep_contracts import escrow as calls
from lockstep_contracts import token as token_calls
from lockstep_contracts.events import Aborted, Announced, Claimed, Committed, Executed, Prepared, Reversed, Skipped, Tombstoned

STEPS = 300
LEGS = 12
SEEDS = (1, 2, 3, 4)
NONE, PREPARED, COMMITTED, ABORTED, REVERSED = LegStatus


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
        """Do it on the chain, one second after the last block; whether it held."""
        self.world.chain.rpc("evm_setNextBlockTimestamp", self.world.chain.now() + 1)
        try:
            self.events.extend(act().events)
        except NodeError:
            return False
        return True

    def any_leg(self) -> tuple[LegTerms, bytes]:
        return self.chance.choice(self.legs)

    def any_owner(self) -> str:
        return self.chance.choice([self.world.payer.address, *self.payees])

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

    def prepare(self) -> None:
        terms, _ = self.any_leg()
        before, could = self.status[terms.leg_key], self.can_take(terms)
        held = self.attempt(lambda: self.world.prepare(terms))
        assert held is (before in (PREPARED, COMMITTED) or (before is NONE and could))
        if held and before is NONE:
            self.status[terms.leg_key] = PREPARED
            self.balances[terms.payer] -= terms.amount

    def commit(self) -> None:
        terms, key = self.any_leg()
        before, right = self.status[terms.leg_key], self.chance.random() < 0.8
        held = self.attempt(lambda: self.world.commit(terms, key if right else bytes(32)))
        assert held is (right and before in (PREPARED, COMMITTED))
        if held and before is PREPARED:
            self.end(terms, COMMITTED)

    def abort(self) -> None:
        terms, _ = self.any_leg()
        before = self.status[terms.leg_key]
        assert self.attempt(lambda: self.world.abort(terms)) is (before not in (COMMITTED, REVERSED))
        if before is PREPARED:
            self.end(terms, ABORTED)
        elif before is NONE:
            self.status[terms.leg_key] = ABORTED

    def reverse(self) -> None:
        chosen = [pair for pair in self.legs if self.status[pair[0].leg_key] is COMMITTED]
        terms, _ = self.chance.choice(chosen or self.legs)
        before, claims = self.status[terms.leg_key], self.claims[terms.payee] >= terms.amount
        can = claims or (self.balances[terms.payee] >= terms.amount and not {terms.payer, terms.payee} & self.blocked)
        held = self.attempt(lambda: self.world.reverse(terms))
        assert held is (before is REVERSED or (before is COMMITTED and can))
        if not held or before is REVERSED:
            return
        self.status[terms.leg_key] = REVERSED
        if claims:
            self.claims[terms.payee] -= terms.amount
            self.pay(terms.payer, terms.amount)
        else:
            self.balances[terms.payee] -= terms.amount
            self.balances[terms.payer] += terms.amount

    def spend(self) -> None:
        payee = self.chance.choice(self.payees)
        amount = self.balances[payee] // 2
        self.world.chain.rpc("anvil_setBalance", payee, hex(10**24))
        if amount and not {payee, self.world.payer.address} & self.blocked:
            self.world.chain.send(payee, self.token, token_calls.encode_transfer(self.world.payer.address, amount))
            self.balances[payee] -= amount
            self.balances[self.world.payer.address] += amount

    def tombstone(self) -> None:
        terms, _ = self.any_leg()
        before = self.status[terms.leg_key]
        held = self.attempt(lambda: self.world.operate(calls.encode_tombstone(terms.leg_key)))
        assert held is (before in (NONE, ABORTED))
        if held:
            self.status[terms.leg_key] = ABORTED

    def batch(self) -> None:
        chosen = self.chance.choices(self.legs, k=4)
        keys = [key if self.chance.random() < 0.8 else bytes(32) for _, key in chosen]
        assert self.attempt(lambda: self.world.operate(calls.encode_try_commit_many([leg for leg, _ in chosen], keys)))
        for (leg, right), sent in zip(chosen, keys, strict=True):
            if self.status[leg.leg_key] is PREPARED and sent == right:
                self.end(leg, COMMITTED)

    def announce(self) -> None:
        terms, _ = self.any_leg()
        side = self.chance.choice(list(Side))
        held = self.attempt(lambda: self.world.arbitrate(calls.encode_announce(terms.leg_key, side)))
        assert held is (self.status[terms.leg_key] is PREPARED)
        if held and self.announced.get(terms.leg_key, (None, 0))[0] is not side:
            self.announced[terms.leg_key] = side, self.world.chain.now() + 7 * 86400

    def execute(self) -> None:
        terms, _ = self.chance.choice([pair for pair in self.legs if pair[0].leg_key in self.announced] or self.legs)
        before = self.status[terms.leg_key]
        side, executable_at = self.announced.get(terms.leg_key, (Side.PAYEE, 2**63))
        result = COMMITTED if side is Side.PAYEE else ABORTED
        held = self.attempt(lambda: self.world.arbitrate(calls.encode_execute(terms)))
        due = terms.leg_key in self.announced and self.world.chain.now() >= executable_at
        assert held is (terms.leg_key in self.announced and (before is result or (before is PREPARED and due)))
        if held and before is PREPARED:
            self.end(terms, result)

    def claim(self) -> None:
        owner = self.any_owner()
        held = self.attempt(
            lambda: self.world.chain.send(self.world.admin, self.world.escrow, calls.encode_claim(self.token, owner))
        )
        assert held is (self.claims[owner] > 0 and owner not in self.blocked)
        if held:
            self.balances[owner] += self.claims.pop(owner)

    def block(self) -> None:
        payer = self.world.payer.address
        owner = payer if payer in self.blocked else self.any_owner()  # while the payer is blocked, little else can happen
        self.blocked ^= {owner}
        self.world.set_flag("BlockingToken", self.token, "setBlocked", owner, owner in self.blocked)

    def wait(self) -> None:
        self.world.chain.pass_time(self.chance.choice([60, 100_000, 8 * 86400]))

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
            case Reversed(forced=False, payer=payer, payee=payee, amount=amount, paid=paid):
                claims[payee] -= amount
                claims[payer] += 0 if paid else amount
            case Claimed(owner=owner, amount=amount):
                claims[owner] -= amount
            case _:
                pass
    return +claims, sum(holds.values())


def test_no_sequence_of_calls_breaks_the_books(world: World) -> None:
    """After every call, balance equals locked plus claimable; at the end, statuses, balances and events tell one story."""
    happened: set[type] = set()
    for seed in SEEDS:
        model = play(world, random.Random(seed))
        model.assert_ends_well()
        happened |= {type(event) for event in model.events}
    assert happened >= {Prepared, Committed, Aborted, Tombstoned, Announced, Executed, Claimed, Reversed, Skipped}


def play(world: World, chance: random.Random) -> Model:
    """One sequence of calls, looked at after each."""
    payees = tuple(address(f"payee {number}") for number in range(3))
    model = Model(world, world.hostile_token("BlockingToken"), chance, payees)
    model.balances[world.payer.address] = SUPPLY
    for _ in range(LEGS):
        model.legs.append(fresh_leg(model))
    weights = {
        model.prepare: 12,
        model.commit: 3,
        model.abort: 2,
        model.reverse: 4,
        model.spend: 1,
        model.tombstone: 1,
        model.batch: 1,
        model.announce: 3,
        model.execute: 4,
        model.claim: 3,
        model.block: 2,
        model.wait: 3,
    }
    for _ in range(STEPS):
        chance.choices(list(weights), list(weights.values()))[0]()
        model.assert_agrees()
        index = chance.randrange(LEGS)
        if chance.random() < 0.3 and model.status[model.legs[index][0].leg_key] is not PREPARED:
            model.legs[index] = fresh_leg(model)
    return model


def fresh_leg(model: Model) -> tuple[LegTerms, bytes]:
    """A leg that nothing was done to yet."""
    terms, key = model.world.leg(
        token=model.token,
        payee=model.chance.choice(model.payees),
        amount=model.chance.randrange(1, 10**9),
        prepare_by=model.world.chain.now() + model.chance.choice([86400, 10**9, 10**9, 10**9]),
    )
    model.status[terms.leg_key] = NONE
    return terms, key
