"""Random call sequences against a model: whatever is called in whatever order, the books agree with it to the unit, token by token."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from auditing import Inconsistent, audited
from contracts_world import SUPPLY, NodeError, Receipt, Signer, World, address, signer

from lockstep_contracts import LegStatus, LegTerms, Side
from lockstep_contracts import escrow as calls
from lockstep_contracts import token as token_calls
from lockstep_contracts.escrow import Permit
from lockstep_contracts.events import Aborted, Announced, Claimed, Committed, Executed, Prepared, Reversed, Skipped, Tombstoned

STEPS = 300
LEGS = 14
SEEDS = (1, 2, 3, 4)
NONE, PREPARED, COMMITTED, ABORTED, REVERSED = LegStatus
UNLIMITED = 2**256 - 1

#: Where a leg may stand after each status, by any number of calls.
REACHABLE = {
    NONE: {NONE, PREPARED, COMMITTED, ABORTED, REVERSED},
    PREPARED: {PREPARED, COMMITTED, ABORTED, REVERSED},
    COMMITTED: {COMMITTED, REVERSED},
    ABORTED: {ABORTED},
    REVERSED: {REVERSED},
}

#: An account's tokens of one kind.
Place = tuple[str, str]


@dataclass
class Model:
    """What the rules say, written down a second time and otherwise."""

    world: World
    tokens: tuple[str, ...]
    chance: random.Random
    #: One lets the escrow take whatever it wants, the other gives permits.
    payers: tuple[Signer, ...]
    payees: tuple[str, ...]
    legs: list[tuple[LegTerms, bytes]] = field(default_factory=list)
    #: Legs that were exchanged for others; they can never change again, or only by a reversal.
    former: list[LegTerms] = field(default_factory=list)
    status: dict[bytes, LegStatus] = field(default_factory=dict)
    announced: dict[bytes, tuple[Side, int]] = field(default_factory=dict)
    balances: Counter[Place] = field(default_factory=Counter)
    allowances: Counter[Place] = field(default_factory=Counter)
    claims: Counter[Place] = field(default_factory=Counter)
    blocked: set[Place] = field(default_factory=set)
    paused: bool = False
    #: What was paid by hand, and is in no event of the escrow.
    spent: Counter[Place] = field(default_factory=Counter)
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

    def owners(self) -> list[str]:
        return [*(payer.address for payer in self.payers), *self.payees]

    def any_place(self) -> Place:
        return self.chance.choice(self.tokens), self.chance.choice(self.owners())

    def signature(self, terms: LegTerms) -> bytes:
        return self.world.sign(terms, next(payer for payer in self.payers if payer.address == terms.payer))

    def pay(self, place: Place, amount: int) -> None:
        if place in self.blocked:
            self.claims[place] += amount
        else:
            self.balances[place] += amount

    def end(self, terms: LegTerms, status: LegStatus) -> None:
        self.status[terms.leg_key] = status
        self.pay((terms.token, terms.payee if status is COMMITTED else terms.payer), terms.amount)

    def take(self, terms: LegTerms, permit: Permit | None) -> bool:
        """What a prepare in the next block, or in this one, would do; whether it would hold."""
        place, now = (terms.token, terms.payer), self.world.chain.now()
        before = self.status[terms.leg_key]
        if before in (PREPARED, COMMITTED):
            return True
        if before is not NONE or self.paused or now > terms.prepare_by or place in self.blocked:
            return False
        allowed = self.allowances[place]
        if allowed < terms.amount and permit is not None and permit.deadline >= now and permit.signature[64] == 27:
            allowed = permit.value
        if min(allowed, self.balances[place]) < terms.amount:
            return False
        self.allowances[place] = UNLIMITED if allowed == UNLIMITED else allowed - terms.amount
        self.balances[place] -= terms.amount
        self.status[terms.leg_key] = PREPARED
        return True

    def permit(self, terms: LegTerms) -> Permit | None:
        """None, one that suffices, or one that does not hold; the token of these tests asks for v = 27 and nothing else."""
        value = self.chance.choice([terms.amount, terms.amount - 1, 2 * terms.amount, UNLIMITED])
        deadline = self.world.chain.now() + self.chance.choice([-100, 1000, 1000])
        permit = Permit(value, deadline, bytes(64) + bytes([self.chance.choice([27, 27, 28])]))
        return permit if terms.payer != self.payers[0].address and self.chance.random() < 0.9 else None

    # -- the calls -----------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        terms, _ = self.any_leg()
        permit = self.permit(terms)
        held = self.attempt(lambda: self.world.prepare(terms, self.signature(terms), permit))
        assert held is self.take(terms, permit)

    def prepare_batch(self) -> None:
        chosen = [terms for terms, _ in self.chance.choices(self.legs, k=4)]
        permits = [self.permit(terms) for terms in chosen]
        calldata = calls.encode_try_prepare_many(chosen, [self.signature(terms) for terms in chosen], permits)
        before = len(self.events)
        assert self.attempt(lambda: self.world.operate(calldata))
        skipped = sum(isinstance(event, Skipped) for event in self.events[before:])
        assert skipped == sum(not self.take(terms, permit) for terms, permit in zip(chosen, permits, strict=True))

    def commit(self) -> None:
        terms, key = self.any_leg()
        before, right = self.status[terms.leg_key], self.chance.random() < 0.8
        held = self.attempt(lambda: self.world.commit(terms, key if right else bytes(32)))
        assert held is (right and before in (PREPARED, COMMITTED))
        if held and before is PREPARED:
            self.end(terms, COMMITTED)

    def commit_batch(self) -> None:
        chosen = self.chance.choices(self.legs, k=4)
        keys = [key if self.chance.random() < 0.8 else bytes(32) for _, key in chosen]
        assert self.attempt(lambda: self.world.operate(calls.encode_try_commit_many([leg for leg, _ in chosen], keys)))
        for (leg, right), sent in zip(chosen, keys, strict=True):
            if self.status[leg.leg_key] is PREPARED and sent == right:
                self.end(leg, COMMITTED)

    def abort(self) -> None:
        terms, _ = self.any_leg()
        before = self.status[terms.leg_key]
        assert self.attempt(lambda: self.world.abort(terms)) is (before not in (COMMITTED, REVERSED))
        self._aborted(terms)

    def abort_batch(self) -> None:
        chosen = [terms for terms, _ in self.chance.choices(self.legs, k=3)]
        assert self.attempt(lambda: self.world.operate(calls.encode_try_abort_many(chosen)))
        for terms in chosen:
            self._aborted(terms)

    def _aborted(self, terms: LegTerms) -> None:
        if self.status[terms.leg_key] is PREPARED:
            self.end(terms, ABORTED)
        elif self.status[terms.leg_key] is NONE:
            self.status[terms.leg_key] = ABORTED

    def reverse(self) -> None:
        chosen = [pair for pair in self.legs if self.status[pair[0].leg_key] is COMMITTED]
        terms, _ = self.chance.choice(chosen or self.legs)
        payer, payee = (terms.token, terms.payer), (terms.token, terms.payee)
        before, claims = self.status[terms.leg_key], self.claims[payee] >= terms.amount
        can = claims or (self.balances[payee] >= terms.amount and not {payer, payee} & self.blocked)
        held = self.attempt(lambda: self.world.reverse(terms))
        assert held is (before is REVERSED or (before is COMMITTED and can))
        if not held or before is REVERSED:
            return
        self.status[terms.leg_key] = REVERSED
        if claims:
            self.claims[payee] -= terms.amount
            self.pay(payer, terms.amount)
        else:
            self.balances[payee] -= terms.amount
            self.balances[payer] += terms.amount

    def spend(self) -> None:
        token, payee = self.chance.choice(self.tokens), self.chance.choice(self.payees)
        payer = self.payers[0].address
        amount = self.balances[token, payee] // 2
        self.world.chain.rpc("anvil_setBalance", payee, hex(10**24))
        if amount and not {(token, payee), (token, payer)} & self.blocked:
            self.world.chain.send(payee, token, token_calls.encode_transfer(payer, amount))
            for counter in (self.balances, self.spent):
                counter[token, payee] -= amount
                counter[token, payer] += amount

    def tombstone(self) -> None:
        terms, _ = self.any_leg()
        before = self.status[terms.leg_key]
        held = self.attempt(lambda: self.world.operate(calls.encode_tombstone(terms.leg_key)))
        assert held is (before in (NONE, ABORTED))
        if held:
            self.status[terms.leg_key] = ABORTED

    def announce(self) -> None:
        terms, _ = self.any_leg()
        side = self.chance.choice(list(Side))
        held = self.attempt(lambda: self.world.arbitrate(calls.encode_announce(terms.leg_key, side)))
        assert held is (self.status[terms.leg_key] is PREPARED)
        if held and self.announced.get(terms.leg_key, (None, 0))[0] is not side:
            self.announced[terms.leg_key] = side, self.world.chain.now() + 7 * 86400

    def retract(self) -> None:
        terms, _ = self.any_leg()
        assert self.attempt(lambda: self.world.arbitrate(calls.encode_retract(terms.leg_key)))
        self.announced.pop(terms.leg_key, None)

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
        owed = sorted(place for place, amount in self.claims.items() if amount)
        place = self.chance.choice(owed) if owed and self.chance.random() < 0.7 else self.any_place()
        held = self.attempt(lambda: self.world.chain.send(self.world.admin, self.world.escrow, calls.encode_claim(*place)))
        assert held is (self.claims[place] > 0 and place not in self.blocked)
        if held:
            self.balances[place] += self.claims.pop(place)

    def block(self) -> None:
        payers = [(token, payer.address) for token in self.tokens for payer in self.payers]
        stuck = [place for place in payers if place in self.blocked]
        token, owner = place = stuck[0] if stuck else self.any_place()  # while payers are blocked, little else can happen
        self.blocked ^= {place}
        self.world.set_flag("BlockingToken", token, "setBlocked", owner, place in self.blocked)

    def pause(self) -> None:
        calldata = calls.UNPAUSE.encode() if self.paused else calls.PAUSE.encode()
        assert self.attempt(lambda: self.world.chain.send(self.world.pauser, self.world.escrow, calldata))
        self.paused = not self.paused

    def meddle(self) -> None:
        """Somebody without a role, or with another one, tries each thing."""
        terms, key = self.any_leg()
        calldata = self.chance.choice([
            calls.encode_commit(terms, key), calls.encode_abort(terms), calls.encode_tombstone(terms.leg_key),
            calls.encode_prepare(terms, self.signature(terms)), calls.encode_execute(terms), calls.encode_reverse(terms),
            calls.PAUSE.encode(), calls.UNPAUSE.encode(), calls.encode_announce(terms.leg_key, Side.PAYER),
        ])  # fmt: skip
        meddler = self.chance.choice([self.world.admin, address("stranger"), self.payers[0].address])
        assert not self.attempt(lambda: self.world.chain.send(meddler, self.world.escrow, calldata))

    def wait(self) -> None:
        self.world.chain.pass_time(self.chance.choice([60, 100_000, 8 * 86400]))

    # -- the checks ----------------------------------------------------------------------------------------------------

    def assert_agrees(self, before: dict[bytes, LegStatus]) -> None:
        """The totals of each token are right, nothing is owned but what is owed, and no leg went where none may go."""
        held = [terms for terms, _ in self.legs if self.status[terms.leg_key] is PREPARED]
        for token in self.tokens:
            assert self.world.locked(token) == sum(terms.amount for terms in held if terms.token == token)
            assert self.world.claimable_total(token) == sum(self.claims[place] for place in self.claims if place[0] == token)
            self.world.assert_conserved(token)
        # Of the chain, not of the model.
        named = [terms for terms, _ in self.legs] + self.former[-LEGS:]
        for terms, status in zip(named, self.world.statuses(named), strict=True):
            assert status is self.status[terms.leg_key]
            assert status in REACHABLE[before.get(terms.leg_key, NONE)]

    def assert_ends_well(self) -> None:
        """Balances are the model's to the unit; and an auditor who has the escrow's events alone finds the same books."""
        everything = [terms for terms, _ in self.legs] + self.former
        assert self.world.statuses(everything) == [self.status[terms.leg_key] for terms in everything]
        books = audited(self.events)
        for terms in everything:
            assert books.statuses.get(terms.leg_key, NONE) is self.status[terms.leg_key]
        for token in self.tokens:
            assert books.locked[token] == self.world.locked(token)
            assert books.owned[token] == self.world.balance(self.world.escrow, token)
            for owner in self.owners():
                place = token, owner
                given = SUPPLY if owner in [payer.address for payer in self.payers] else 0
                assert self.world.balance(owner, token) == self.balances[place]
                assert self.world.claimable(token, owner) == self.claims[place] == books.claimable[place]
                assert given + self.spent[place] + books.net[place] == self.balances[place]


def test_no_sequence_of_calls_breaks_the_books(world: World) -> None:
    """After every call each token's balance is locked plus claimable; in the end statuses, balances and events tell one story."""
    happened: set[type] = set()
    permitted = 0
    for seed in SEEDS:
        model = play(world, random.Random(seed))
        model.assert_ends_well()
        # Nor could an event be left out unnoticed.
        assert missed(model.events) == []
        happened |= {type(event) for event in model.events}
        permitted += sum(isinstance(each, Prepared) and each.terms.payer == model.payers[1].address for each in model.events)
    assert happened >= {Prepared, Committed, Aborted, Tombstoned, Announced, Executed, Claimed, Reversed, Skipped}
    assert permitted >= 10


def missed(events: list[object]) -> list[object]:
    """Events of the books without which the auditor would find the same books."""
    unnoticed: list[object] = []
    books = audited(events)
    for place, event in enumerate(events):
        if not isinstance(event, Prepared | Committed | Aborted | Tombstoned | Executed | Reversed | Claimed):
            continue
        try:
            found = audited(events[:place] + events[place + 1 :])
        except Inconsistent:
            continue
        if found == books:
            unnoticed.append(event)
    return unnoticed


def play(world: World, chance: random.Random) -> Model:
    """One sequence of calls, looked at after each."""
    payees = tuple(address(f"payee {number}") for number in range(3))
    payers = (world.payer, signer("permitting payer"))
    tokens = tuple(world.hostile_token("BlockingToken") for _ in range(2))
    model = Model(world, tokens, chance, payers, payees)
    for token in tokens:
        world.chain.send(world.admin, token, token_calls.encode_mint(payers[1].address, SUPPLY))
        model.allowances[token, payers[0].address] = UNLIMITED
        for payer in payers:
            model.balances[token, payer.address] = SUPPLY
    model.legs.extend(fresh_leg(model) for _ in range(LEGS))
    steps: Sequence[tuple[Callable[[], None], int]] = (
        (model.prepare, 12), (model.prepare_batch, 3), (model.commit, 3), (model.commit_batch, 1), (model.abort, 2),
        (model.abort_batch, 1), (model.reverse, 4), (model.spend, 1), (model.tombstone, 1), (model.announce, 3), (model.retract, 1),
        (model.execute, 4), (model.claim, 4), (model.block, 3), (model.pause, 1), (model.meddle, 1), (model.wait, 3),
    )  # fmt: skip
    for _ in range(STEPS):
        before = dict(model.status)
        chance.choices([step for step, _ in steps], [weight for _, weight in steps])[0]()
        model.assert_agrees(before)
        if model.paused and chance.random() < 0.5:
            model.pause()
        index = chance.randrange(LEGS)
        if chance.random() < 0.3 and model.status[model.legs[index][0].leg_key] is not PREPARED:
            model.former.append(model.legs[index][0])
            model.legs[index] = fresh_leg(model)
    return model


def fresh_leg(model: Model) -> tuple[LegTerms, bytes]:
    """A leg that nothing was done to yet."""
    terms, key = model.world.leg(
        token=model.chance.choice(model.tokens),
        payer=model.chance.choice(model.payers).address,
        payee=model.chance.choice(model.payees),
        amount=model.chance.randrange(1, 10**9),
        prepare_by=model.world.chain.now() + model.chance.choice([86400, 10**9, 10**9, 10**9]),
    )
    model.status[terms.leg_key] = NONE
    return terms, key
