"""What the contracts do, as pure state machines: SettlementEscrow with a token that it holds; NotaryRegistry is in `registry_contract` (contracts/src).

They take and give the same bytes as the real ones: calldata, results, logs and errors, by the ABI that the compiler gave. Of gas there is only what the
circumstances of a block say. What is lost at the edge: permits, roles other than the operator's, the arbiter, tokens that call back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final

from eth_abi.abi import decode, encode
from eth_utils.address import to_canonical_address as raw
from eth_utils.address import to_checksum_address

from lockstep_chain.ports import CallReverted, Log, Question, Told
from lockstep_contracts import escrow, notary, token
from lockstep_contracts.artifacts import Artifact
from lockstep_contracts.calldata import SELECTOR_BYTES, Function, abi_type, input_types, selector_of, signature_hash
from lockstep_contracts.escrow import LegStatus, LegTerms
from lockstep_contracts.events import terms_from_fields
from lockstep_contracts.notary import AnchorKind, PlanStatus
from lockstep_contracts.token import TOKEN

if TYPE_CHECKING:
    from lockstep_testkit.simulation.registry_contract import NotaryRegistry

#: An allowance that does not shrink.
UNLIMITED: Final = 2**256 - 1
#: Bytes of a hash that a slot keeps.
KEPT: Final = 31
NOTHING: Final = bytes(KEPT)
#: Selectors of what is asked, and changes nothing.
_READING: Final = (escrow.STATUS_OF_MANY.selector, notary.ANCHOR_OF_MANY.selector)


def payer_signature(payer: str, signing_hash: bytes) -> bytes:
    """What stands for the signature of a payer, which costs a millisecond of the real one."""
    return hashlib.sha256(b"signature" + payer.encode() + signing_hash).digest() * 2 + b"\x1b"


@dataclass(slots=True)
class State:
    """What the contracts hold after some block."""

    #: Legs by their keys: status, and what is kept of the hash of their terms.
    legs: dict[bytes, tuple[LegStatus, bytes]] = field(default_factory=dict)
    #: Token's minor units by owner, the escrow among them; what each lets the escrow spend.
    balances: dict[str, int] = field(default_factory=dict)
    allowances: dict[str, int] = field(default_factory=dict)
    #: What the escrow owes to whom, since it could not be paid.
    claimable: dict[str, int] = field(default_factory=dict)
    #: Plans by their digests: status, and what is kept of the hash of the evidence.
    plans: dict[bytes, tuple[PlanStatus, bytes]] = field(default_factory=dict)
    #: Anchored roots: kind, and number of leaves.
    anchors: dict[bytes, tuple[AnchorKind, int]] = field(default_factory=dict)

    def copy(self) -> State:
        """The same, apart."""
        return State(
            dict(self.legs), dict(self.balances), dict(self.allowances), dict(self.claimable), dict(self.plans), dict(self.anchors)
        )

    def leg(self, key: bytes) -> LegStatus:
        """Where a leg stands."""
        return self.legs[key][0] if key in self.legs else LegStatus.NONE

    def plan(self, digest: bytes) -> PlanStatus:
        """Where a plan stands."""
        return self.plans[digest][0] if digest in self.plans else PlanStatus.NONE


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a transaction meets in its block."""

    #: Seconds since 1970, as the block says.
    timestamp: int
    #: Whether the escrow's pauser has refused further prepares.
    paused: bool = False
    #: Whom the token pays nothing to.
    unpaid: frozenset[str] = frozenset()
    #: Items of a batch for which there is gas; None: for all.
    items_max: int | None = None


@dataclass(frozen=True, slots=True)
class Effect:
    """What changed for good if its block stays: an event's name, and the leg, plan or root that it names."""

    name: str
    key: bytes


@dataclass(frozen=True, slots=True)
class Executed:
    """How a transaction ended."""

    #: What it reverted with; None: it succeeded.
    reverted: bytes | None
    #: Its logs, and what changed.
    logs: tuple[Log, ...] = ()
    effects: tuple[Effect, ...] = ()


class _Reverted(Exception):
    def __init__(self, reason: bytes) -> None:
        super().__init__(reason)
        self.reason = reason


@cache
def _error_layout(contract: str, name: str) -> tuple[bytes, tuple[str, ...]]:
    entry = _ARTIFACTS[contract].entry("error", name)
    return selector_of(entry), input_types(entry)


def _error(contract: Artifact, name: str, *values: Any) -> _Reverted:
    selector, types = _error_layout(contract.name, name)
    return _Reverted(selector + encode(types, values))


_ARTIFACTS: Final = {each.name: each for each in (escrow.ESCROW, notary.REGISTRY, TOKEN)}


class Run:
    """One transaction on one contract while it runs."""

    def __init__(self, state: State, address: str, contract: Artifact, now: Circumstances) -> None:
        self.state: Final = state
        self.now: Final = now
        self.address: Final = address
        self.logs: Final[list[Log]] = []
        self.effects: Final[list[Effect]] = []
        self._contract = contract

    def emit(self, name: str, key: bytes, *values: Any) -> None:
        """Write an event whose first argument is a key."""
        self.write(name, key, (key, *values))

    def write(self, name: str, key: bytes, values: Sequence[Any]) -> None:
        """Write an event about a key."""
        topic, indexed, plain = _event_layout(self._contract.name, name)
        topics = (topic, *(encode([kind], [values[place]]) for place, kind in indexed))
        data = encode([kind for _, kind in plain], [values[place] for place, _ in plain])
        self.logs.append(Log(self.address, topics, data))
        if name != "Skipped":
            self.effects.append(Effect(name, key))

    def fail(self, name: str, *values: Any) -> _Reverted:
        """An error of the contract."""
        return _error(self._contract, name, *values)

    def each(self, items: Sequence[Any], key_of: Callable[[Any], bytes], act: Callable[[Any], None]) -> None:
        """Do what can be done of a batch; say of the others why not."""
        for place, item in enumerate(items):
            try:
                if self.now.items_max is not None and place >= self.now.items_max:
                    raise self.fail("GasTooLow", key_of(item))
                act(item)
            except _Reverted as found:
                self.emit("Skipped", key_of(item), found.reason)


@cache
def _event_layout(contract: str, name: str) -> tuple[bytes, tuple[tuple[int, str], ...], tuple[tuple[int, str], ...]]:
    entry = _ARTIFACTS[contract].entry("event", name)
    kinds = [(place, abi_type(each), each["indexed"]) for place, each in enumerate(entry["inputs"])]
    indexed = tuple((place, kind) for place, kind, is_topic in kinds if is_topic)
    return signature_hash(entry), indexed, tuple((place, kind) for place, kind, is_topic in kinds if not is_topic)


@lru_cache(maxsize=4096)
def arguments(function: Function, data: bytes) -> tuple[Any, ...]:
    """Arguments of a call."""
    return decode(function.inputs, data[SELECTOR_BYTES:])


@lru_cache(maxsize=4096)
def _leg(fields: tuple[Any, ...]) -> tuple[LegTerms, bytes]:
    """The terms of a leg, and what a slot keeps of their hash."""
    terms = terms_from_fields(fields)
    return terms, escrow.terms_hash(terms)[:KEPT]


class Escrow:
    """SettlementEscrow over one token."""

    def __init__(self, address: str, token: str, operators: Collection[str], chain_id: int, *, controlled: bool = False) -> None:
        self.address: Final = address
        self.token: Final = token
        self.operators: Final = frozenset(operators)
        self._chain_id = chain_id
        #: Whether the token's owner made the escrow one of its controllers.
        self._controlled = controlled

    def run(self, state: State, data: bytes, now: Circumstances) -> Run:
        """Run a transaction of the operator on a state."""
        run = Run(state, self.address, escrow.ESCROW, now)
        selector = data[:SELECTOR_BYTES]
        if selector == escrow.TRY_PREPARE_MANY.selector:
            legs, signatures, _ = arguments(escrow.TRY_PREPARE_MANY, data)
            run.each(list(zip(legs, signatures, strict=True)), _key_of_first, lambda item: self._prepare(run, *item))
        elif selector == escrow.PREPARE.selector:
            self._prepare(run, *arguments(escrow.PREPARE, data)[:2])
        elif selector == escrow.TRY_COMMIT_MANY.selector:
            legs, keys = arguments(escrow.TRY_COMMIT_MANY, data)
            run.each(list(zip(legs, keys, strict=True)), _key_of_first, lambda item: self._commit(run, *item))
        elif selector == escrow.TRY_ABORT_MANY.selector:
            run.each(arguments(escrow.TRY_ABORT_MANY, data)[0], _key_of, lambda leg: self._abort(run, leg))
        elif selector == escrow.TRY_REVERSE_MANY.selector:
            run.each(arguments(escrow.TRY_REVERSE_MANY, data)[0], _key_of, lambda leg: self._reverse(run, leg))
        else:
            raise AssertionError(f"the escrow's {selector.hex()} has no twin")
        return run

    def read(self, state: State, data: bytes) -> bytes:
        """Result of statusOfMany."""
        (keys,) = arguments(escrow.STATUS_OF_MANY, data)
        return encode(escrow.STATUS_OF_MANY.outputs, [[state.leg(key) for key in keys]])

    def ask_token(self, state: State, question: Question, now: Circumstances) -> Told:
        """What the token answers: balances, allowances for the escrow, and whether it would pay somebody."""
        selector, data = question.data[:SELECTOR_BYTES], question.data
        if selector == token.TRANSFER.selector:
            to, amount = arguments(token.TRANSFER, data)
            payee = to_checksum_address(to)
            if payee in now.unpaid:
                return Told(succeeded=False, output=_error(TOKEN, "ERC20InvalidReceiver", payee).reason)
            try:
                self._move(state, question.sender, payee, amount)
            except _Reverted as found:
                return Told(succeeded=False, output=found.reason)
            return Told(succeeded=True, output=encode(["bool"], [True]))
        if selector == token.BALANCE_OF.selector:
            (owner,) = arguments(token.BALANCE_OF, data)
            return Told(succeeded=True, output=encode(["uint256"], [state.balances.get(to_checksum_address(owner), 0)]))
        if selector == token.ALLOWANCE.selector:
            owner, _ = arguments(token.ALLOWANCE, data)
            return Told(succeeded=True, output=encode(["uint256"], [state.allowances.get(to_checksum_address(owner), 0)]))
        raise AssertionError(f"the token's {selector.hex()} has no twin")

    def _prepare(self, run: Run, fields: tuple[Any, ...], signature: bytes) -> None:
        terms, kept = _leg(fields)
        key, state = terms.leg_key, run.state
        if key in state.legs:
            status, held = state.legs[key]
            if status is LegStatus.ABORTED or (status is LegStatus.REVERSED and held == kept):
                raise run.fail("BadState", key, status)
            if held != kept:
                raise run.fail("TermsConflict", key)
            return
        if run.now.paused:
            raise run.fail("EnforcedPause")
        if run.now.timestamp > terms.prepare_by:
            raise run.fail("PrepareTooLate", key, terms.prepare_by)
        if terms.payee in (terms.payer, terms.token, self.address) or terms.payer == self.address or terms.token != self.token:
            raise run.fail("TermsInvalid", key)
        if signature != payer_signature(terms.payer, escrow.leg_signing_hash(self._chain_id, self.address, terms)):
            raise run.fail("SignatureInvalid", key, terms.payer)
        allowed = state.allowances.get(terms.payer, 0)
        if allowed < terms.amount:
            raise _error(TOKEN, "ERC20InsufficientAllowance", self.address, allowed, terms.amount)
        self._move(state, terms.payer, self.address, terms.amount)
        if allowed < UNLIMITED:
            state.allowances[terms.payer] = allowed - terms.amount
        state.legs[key] = LegStatus.PREPARED, kept
        run.emit("Prepared", key, terms.fields())

    def _commit(self, run: Run, fields: tuple[Any, ...], preimage: bytes) -> None:
        terms, kept = _leg(fields)
        key = terms.leg_key
        status, held = run.state.legs.get(key, (LegStatus.NONE, NOTHING))
        if status is LegStatus.NONE or held == NOTHING:
            raise run.fail("BadState", key, status)
        if held != kept:
            raise run.fail("TermsConflict", key)
        if hashlib.sha256(preimage).digest() != terms.lock:
            raise run.fail("KeyWrong", key)
        if status in (LegStatus.ABORTED, LegStatus.REVERSED):
            raise run.fail("BadState", key, status)
        if status is LegStatus.COMMITTED:
            return
        run.state.legs[key] = LegStatus.COMMITTED, kept
        paid = self._pay_out(run, terms.payee, terms.amount)
        run.emit("Committed", key, raw(terms.token), raw(terms.payee), terms.amount, preimage, paid)

    def _abort(self, run: Run, fields: tuple[Any, ...]) -> None:
        terms, kept = _leg(fields)
        key = terms.leg_key
        status, held = run.state.legs.get(key, (LegStatus.NONE, NOTHING))
        if status is LegStatus.NONE:
            run.state.legs[key] = LegStatus.ABORTED, NOTHING
            run.emit("Tombstoned", key)
            return
        if held not in (kept, NOTHING):
            raise run.fail("TermsConflict", key)
        if status in (LegStatus.COMMITTED, LegStatus.REVERSED):
            raise run.fail("BadState", key, status)
        if status is LegStatus.ABORTED:
            return
        run.state.legs[key] = LegStatus.ABORTED, kept
        paid = self._pay_out(run, terms.payer, terms.amount)
        run.emit("Aborted", key, raw(terms.token), raw(terms.payer), terms.amount, paid)

    def _reverse(self, run: Run, fields: tuple[Any, ...]) -> None:
        terms, kept = _leg(fields)
        key, state = terms.leg_key, run.state
        status, held = state.legs.get(key, (LegStatus.NONE, NOTHING))
        if status is LegStatus.NONE or held == NOTHING:
            raise run.fail("BadState", key, status)
        if held != kept:
            raise run.fail("TermsConflict", key)
        if status is LegStatus.REVERSED:
            return
        if status is not LegStatus.COMMITTED:
            raise run.fail("BadState", key, status)
        forced, paid = state.claimable.get(terms.payee, 0) < terms.amount, True
        if forced:
            if not self._controlled:
                raise _error(TOKEN, "NotAgent", self.address)
            self._move(state, terms.payee, terms.payer, terms.amount)
        else:
            state.claimable[terms.payee] -= terms.amount
            paid = self._pay_out(run, terms.payer, terms.amount)
        state.legs[key] = LegStatus.REVERSED, kept
        run.emit("Reversed", key, raw(terms.token), raw(terms.payer), raw(terms.payee), terms.amount, forced, paid)

    def _pay_out(self, run: Run, owner: str, amount: int) -> bool:
        """Pay from what is held, or owe it."""
        if owner in run.now.unpaid:
            run.state.claimable[owner] = run.state.claimable.get(owner, 0) + amount
            return False
        self._move(run.state, self.address, owner, amount)
        return True

    def _move(self, state: State, payer: str, payee: str, amount: int) -> None:
        has = state.balances.get(payer, 0)
        if has < amount:
            raise _error(TOKEN, "ERC20InsufficientBalance", payer, has, amount)
        state.balances[payer] = has - amount
        state.balances[payee] = state.balances.get(payee, 0) + amount


def _key_of(fields: tuple[Any, ...]) -> bytes:
    return _leg(fields)[0].leg_key


def _key_of_first(item: tuple[tuple[Any, ...], bytes]) -> bytes:
    return _key_of(item[0])


class Contracts:
    """Everything that has code on the chain."""

    def __init__(self, *contracts: Escrow | NotaryRegistry) -> None:
        self._by_address: Final = {each.address: each for each in contracts}

    def execute(self, state: State, sender: str, to: str, data: bytes, now: Circumstances) -> Executed:
        """Run a transaction on a state, which is not to be kept if it reverts; an account without code takes whatever comes."""
        contract = self._by_address.get(to)
        if contract is None:
            return Executed(None)
        if sender not in contract.operators:
            artifact = escrow.ESCROW if isinstance(contract, Escrow) else notary.REGISTRY
            return Executed(_error(artifact, "AccessControlUnauthorizedAccount", sender, escrow.OPERATOR_ROLE).reason)
        run = contract.run(state, data, now)
        return Executed(None, tuple(run.logs), tuple(run.effects))

    def rehearse(self, state: State, question: Question, now: Circumstances) -> Told:
        """What a call would do on a state, which it changes."""
        selector, data = question.data[:SELECTOR_BYTES], question.data
        held = next((each for each in self._by_address.values() if isinstance(each, Escrow) and each.token == question.to), None)
        if held is not None:
            return held.ask_token(state, question, now)
        contract = self._by_address.get(question.to)
        if not isinstance(contract, Escrow):
            return Told(succeeded=True, output=b"")
        if selector == escrow.PAUSED.selector:
            return Told(succeeded=True, output=encode(escrow.PAUSED.outputs, [now.paused]))
        if selector == escrow.STATUS_OF_MANY.selector:
            return Told(succeeded=True, output=contract.read(state, data))
        try:
            run = contract.run(state, data, now)
        except _Reverted as found:
            return Told(succeeded=False, output=found.reason)
        return Told(succeeded=True, output=b"", logs=tuple(run.logs))

    def read(self, state: State, to: str, data: bytes) -> bytes:
        """Result of a call that changes nothing.

        Raises:
            CallReverted: it was executed and reverted.
        """
        contract = self._by_address.get(to)
        if contract is None:
            return b""
        if data[:SELECTOR_BYTES] not in _READING:
            # A transaction that is run once more, to hear why it reverted.
            raise CallReverted(b"")
        return contract.read(state, data)
