"""What the contracts say: their events and their errors, decoded. Pure.

Addresses are EIP-55 text. A log or an error of another contract is None, never a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeAlias

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_utils.address import to_checksum_address

from lockstep_contracts.artifacts import AbiEntry
from lockstep_contracts.calldata import abi_type, input_types, selector_of, signature_hash, split_reason
from lockstep_contracts.escrow import ESCROW, LegTerms, Side
from lockstep_contracts.notary import REGISTRY, AnchorKind, EscalationKind, PlanStatus
from lockstep_contracts.token import TOKEN

#: A checksum costs a hash of the address; few of them stand in many logs.
_a: Final = lru_cache(4_096)(to_checksum_address)


@dataclass(frozen=True, slots=True)
class Prepared:
    """The escrow holds the payer's tokens."""

    leg_key: bytes
    terms: LegTerms


@dataclass(frozen=True, slots=True)
class Committed:
    """A hold was paid out to the payee, or, if not `paid`, became claimable by it."""

    leg_key: bytes
    token: str
    payee: str
    amount: int
    key: bytes
    paid: bool


@dataclass(frozen=True, slots=True)
class Aborted:
    """A hold was refunded to the payer, or, if not `paid`, became claimable by it."""

    leg_key: bytes
    token: str
    payer: str
    amount: int
    paid: bool


@dataclass(frozen=True, slots=True)
class Reversed:
    """What was paid out is the payer's again: from the payee if `forced`, else what it could have claimed; claimable if not `paid`."""

    leg_key: bytes
    token: str
    payer: str
    payee: str
    amount: int
    forced: bool
    paid: bool


@dataclass(frozen=True, slots=True)
class Tombstoned:
    """A leg was aborted before it was prepared."""

    leg_key: bytes


@dataclass(frozen=True, slots=True)
class Announced:
    """An arbiter will end a hold in favour of `pay_to` from `executable_at` (unix seconds) on."""

    leg_key: bytes
    pay_to: Side
    executable_at: int


@dataclass(frozen=True, slots=True)
class Retracted:
    """An arbiter took an announcement back."""

    leg_key: bytes


@dataclass(frozen=True, slots=True)
class Executed:
    """An arbiter ended a hold; the amount went to `owner`, or, if not `paid`, became claimable by it."""

    leg_key: bytes
    token: str
    owner: str
    pay_to: Side
    amount: int
    paid: bool


@dataclass(frozen=True, slots=True)
class Claimed:
    """What had become claimable was paid to its owner."""

    token: str
    owner: str
    amount: int


@dataclass(frozen=True, slots=True)
class Registered:
    """A plan was registered at the notary's contract."""

    plan_digest: bytes


@dataclass(frozen=True, slots=True)
class Finalised:
    """A plan's outcome was recorded at the notary's contract."""

    plan_digest: bytes
    outcome: PlanStatus
    evidence_hash: bytes


@dataclass(frozen=True, slots=True)
class Anchored:
    """A Merkle root was anchored at the notary's contract."""

    kind: AnchorKind
    root: bytes
    size: int


@dataclass(frozen=True, slots=True)
class EscalationRecorded:
    """Something was said of an escalation at the notary's contract."""

    plan_digest: bytes
    escalation: bytes
    kind: EscalationKind
    document_hash: bytes


@dataclass(frozen=True, slots=True)
class Skipped:
    """One item of a batch took no effect, in the escrow or the registry."""

    #: Leg key, plan digest, root, or key of an escalation's record.
    key: bytes
    #: An error with its arguments; see `decode_error`.
    reason: bytes


@dataclass(frozen=True, slots=True)
class Transferred:
    """An ERC-20 transfer (EIP-20 Transfer)."""

    sender: str
    recipient: str
    amount: int


Event: TypeAlias = (
    Prepared
    | Committed
    | Aborted
    | Reversed
    | Tombstoned
    | Announced
    | Retracted
    | Executed
    | Claimed
    | Registered
    | Finalised
    | Anchored
    | EscalationRecorded
    | Skipped
    | Transferred
)


@dataclass(frozen=True, slots=True)
class ContractError:
    """What a call reverted with, or why an item was skipped."""

    #: Name in the contract's source: BadState, TermsConflict, SignatureInvalid, ERC20InsufficientAllowance, …
    name: str
    #: Arguments by their names in the source.
    arguments: Mapping[str, Any]

    def __str__(self) -> str:
        texts = (f"{name}={_text(value)}" for name, value in self.arguments.items())
        return f"{self.name}({', '.join(texts)})"


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where an event's values lie, and what is made of them."""

    build: Callable[..., Event]
    indexed: tuple[str, ...]
    plain: tuple[str, ...]
    #: For each parameter in order: whether it is a topic.
    order: tuple[bool, ...]


def decode_log(topics: Sequence[bytes], data: bytes) -> Event | None:
    """The event that a log holds; None if it is no event of these contracts. The caller checks the log's address."""
    layout = _EVENTS.get(bytes(topics[0])) if topics else None
    if layout is None or len(topics) != len(layout.indexed) + 1:
        return None
    try:
        indexed = iter([decode([kind], topic)[0] for kind, topic in zip(layout.indexed, topics[1:], strict=True)])
        plain = iter(decode(layout.plain, data))
    except DecodingError:
        return None
    return layout.build(*(next(indexed if is_topic else plain) for is_topic in layout.order))


def event_topic(kind: type[Event]) -> bytes:
    """First topic of an event's logs, to filter by."""
    return _TOPICS[kind]


def decode_error(revert_data: bytes) -> ContractError | None:
    """The error that a call reverted with; None if it is none that these contracts, ERC-20 (EIP-6093) or Solidity name."""
    selector, arguments = split_reason(revert_data)
    entry = _ERRORS.get(selector)
    if entry is None:
        return None
    try:
        values = decode(input_types(entry), arguments)
    except DecodingError:
        return None
    parameters = entry["inputs"]
    named = {item["name"]: _plain(item, value) for item, value in zip(parameters, values, strict=True)}
    return ContractError(entry["name"], named)


def _plain(parameter: AbiEntry, value: Any) -> Any:
    return to_checksum_address(value) if parameter["type"] == "address" else value


def _text(value: Any) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)


def terms_from_fields(fields: Sequence[Any]) -> LegTerms:
    """Terms from the members of the contract's struct."""
    digest, id_hash, token, payer, payee, amount, lock, prepare_by = fields
    return LegTerms(digest, id_hash, _a(token), _a(payer), _a(payee), amount, lock, prepare_by)


#: Event name -> what is made of its parameters, in the order of the source.
_BUILDERS: Final[dict[str, tuple[type[Event], Callable[..., Event]]]] = {
    "Prepared": (Prepared, lambda key, terms: Prepared(key, terms_from_fields(terms))),
    "Committed": (
        Committed,
        lambda leg, token, payee, amount, key, paid: Committed(leg, _a(token), _a(payee), amount, key, paid),
    ),
    "Aborted": (Aborted, lambda leg, token, payer, amount, paid: Aborted(leg, _a(token), _a(payer), amount, paid)),
    "Reversed": (
        Reversed,
        lambda leg, token, payer, payee, amount, forced, paid: Reversed(leg, _a(token), _a(payer), _a(payee), amount, forced, paid),
    ),
    "Tombstoned": (Tombstoned, Tombstoned),
    "Announced": (Announced, lambda leg, pay_to, at: Announced(leg, Side(pay_to), at)),
    "Retracted": (Retracted, Retracted),
    "Executed": (
        Executed,
        lambda leg, token, owner, pay_to, amount, paid: Executed(leg, _a(token), _a(owner), Side(pay_to), amount, paid),
    ),
    "Claimed": (Claimed, lambda token, owner, amount: Claimed(_a(token), _a(owner), amount)),
    "Registered": (Registered, Registered),
    "Finalised": (Finalised, lambda plan, outcome, evidence: Finalised(plan, PlanStatus(outcome), evidence)),
    "Anchored": (Anchored, lambda kind, root, size: Anchored(AnchorKind(kind), root, size)),
    "EscalationRecorded": (
        EscalationRecorded,
        lambda plan, escalation, kind, document: EscalationRecorded(plan, escalation, EscalationKind(kind), document),
    ),
    "Skipped": (Skipped, Skipped),
    "Transfer": (Transferred, lambda sender, recipient, amount: Transferred(_a(sender), _a(recipient), amount)),
}


def _layout(entry: AbiEntry, build: Callable[..., Event]) -> _Layout:
    order = tuple(parameter["indexed"] for parameter in entry["inputs"])
    types = [abi_type(parameter) for parameter in entry["inputs"]]
    return _Layout(
        build=build,
        indexed=tuple(kind for kind, is_topic in zip(types, order, strict=True) if is_topic),
        plain=tuple(kind for kind, is_topic in zip(types, order, strict=True) if not is_topic),
        order=order,
    )


_ENTRIES: Final = [entry for contract in (ESCROW, REGISTRY, TOKEN) for entry in contract.abi]
_EVENTS: Final = {
    signature_hash(entry): _layout(entry, _BUILDERS[entry["name"]][1])
    for entry in _ENTRIES
    if entry["type"] == "event" and entry["name"] in _BUILDERS
}
_TOPICS: Final = {
    _BUILDERS[entry["name"]][0]: signature_hash(entry)
    for entry in _ENTRIES
    if entry["type"] == "event" and entry["name"] in _BUILDERS
}
#: Errors that Solidity itself raises (Solidity documentation, "Panic via assert and Error via require").
_SOLIDITY_ERRORS: Final[list[AbiEntry]] = [
    {"type": "error", "name": "Error", "inputs": [{"name": "message", "type": "string"}]},
    {"type": "error", "name": "Panic", "inputs": [{"name": "code", "type": "uint256"}]},
]
# The escrow's and the registry's BadState have the same selector; the escrow's argument names stand.
_ERRORS: Final = {selector_of(entry): entry for entry in [*_SOLIDITY_ERRORS, *reversed(_ENTRIES)] if entry["type"] == "error"}
