"""A history as the documents that a verifier reads: the bundle out of journal, notary and coordinator, and the auditor's trust file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from eth_abi.abi import encode
from eth_account import Account
from eth_utils.crypto import keccak

from lockstep_kit import merkle, notes
from lockstep_kit.canonical import Document, canonical, statement, time_text
from lockstep_kit.ids import Digest, sha256
from lockstep_kit.plan import header_document, leg_document
from lockstep_kit.signing import Signature, SigningKey
from lockstep_kit.statements import GateSignature, SignedOutcome, SignedVote
from lockstep_testkit.bundles.auditor import ACCOUNT_KEY, ORIGIN, WITNESS, trust
from lockstep_testkit.bundles.history import BEGUN, REGISTRY, History
from lockstep_testkit.factories import CHAIN, KEYS_FROM, KEYS_UNTIL, key_of

WITNESSED_AT: Final = datetime(2026, 6, 1, 12, 10, 0, tzinfo=UTC)
_STATUSES: Final = {"COMMITTED": "Committed", "ABORTED": "Aborted", "REVERSED": "Aborted", "MIXED": "Mixed"}
_KINDS: Final = {"checkpoint": 1, "registrations": 2, "outcomes": 3}
_SELECTOR: Final = keccak(b"anchorMany((uint8,bytes32,uint64)[])")[:4]


def text(octets: bytes) -> str:
    """Bytes as a bundle writes them."""
    return base64.b64encode(octets).decode()


def mark(signature: Signature) -> dict[str, str]:
    """A signature as a bundle writes it."""
    return {"key_id": signature.key_id, "signature": text(signature.octets)}


def signed(statement_bytes: bytes, signature: Signature) -> dict[str, Any]:
    """A signed statement as a bundle writes it."""
    return {"statement": text(statement_bytes), "signature": mark(signature)}


@dataclass(frozen=True, slots=True)
class Log:
    """The journal's log, with a plan's entries among those of others."""

    #: Hashes of all leaves.
    leaves: tuple[Digest, ...]
    #: Place of each of the plan's entries, from 0.
    places: tuple[int, ...]

    @classmethod
    def of(cls, history: History) -> Log:
        """Three strange entries before each of the plan's, five behind the last."""
        leaves: list[Digest] = []
        places = []
        for index, entry in enumerate(history.entries):
            leaves += [merkle.leaf_hash(f"strange {index} {number}".encode()) for number in range(3)]
            places.append(len(leaves))
            leaves.append(merkle.leaf_hash(entry.signed))
        leaves += [merkle.leaf_hash(f"strange behind {number}".encode()) for number in range(5)]
        return cls(tuple(leaves), tuple(places))

    def checkpoint(self, size: int, key: SigningKey) -> notes.SignedCheckpoint:
        """The log at a size, signed."""
        return notes.sign(notes.Checkpoint(ORIGIN, size, merkle.root(self.leaves[:size])), key)

    @property
    def sealed_size(self) -> int:
        """The smallest size that holds the plan's whole chain, and one strange entry."""
        return self.places[-1] + 2


def anchor(
    kind: str, root: bytes, size: int, others: Sequence[tuple[int, bytes, int]] = (), *, account_key: bytes = ACCOUNT_KEY
) -> dict[str, Any]:
    """A root in the registry, and the transaction that took it there among others."""
    roots = [*others, (_KINDS[kind], root, size)]
    call = {
        "type": 2,
        "chainId": int(CHAIN.removeprefix("eip155:")),
        "nonce": 7,
        "maxPriorityFeePerGas": 1,
        "maxFeePerGas": 10**9,
        "gas": 200_000,
        "to": REGISTRY,
        "value": 0,
        "data": _SELECTOR + encode(["(uint8,bytes32,uint64)[]"], [roots]),
    }
    sent = Account.sign_transaction(call, account_key)
    return {
        "kind": kind,
        "root": text(root),
        "size": str(size),
        "chain": CHAIN,
        "registry": REGISTRY,
        "raw_transaction": text(bytes(sent.raw_transaction)),
        "block_number": "4711",
        "block_hash": text(sha256(b"block 4711")),
    }


def proof(document: Document, kind: str, *, anchored: bool = True) -> dict[str, Any]:
    """A plan's leaf in a batch of five."""
    data = statement("lockstep/anchor/v1", document)
    leaves = [merkle.leaf_hash(f"strange plan {number}".encode()) for number in range(5)]
    leaves[3] = merkle.leaf_hash(data)
    root = merkle.root(leaves)
    found: dict[str, Any] = {
        "leaf_data": text(data),
        "leaf_index": "3",
        "tree_size": "5",
        "path": [text(each) for each in merkle.audit_path(leaves, 3)],
        "root": text(root),
    }
    return found | ({"anchor": anchor(kind, root, 5)} if anchored else {})


def registration_leaf(history: History) -> dict[str, Document]:
    """What stands for the plan's registration in a batch."""
    return {"version": 1, "kind": "registration", "plan_digest": history.case.header.digest.hex()}


def outcome_leaf(history: History) -> dict[str, Document]:
    """What stands for the plan's outcome in a batch."""
    return {
        "version": 1,
        "kind": "outcome",
        "plan_digest": history.case.header.digest.hex(),
        "outcome": _STATUSES[history.outcome],
        "evidence_digest": history.evidence.hex(),
    }


def record(history: History, status: str) -> dict[str, Any]:
    """A single record in the registry."""
    return {
        "chain": CHAIN,
        "registry": REGISTRY,
        "entry_key": text(history.case.header.digest),
        "entry_status": status,
        "transaction_hash": text(sha256(status.encode())),
        "block_number": "4700",
        "block_hash": text(sha256(b"block 4700")),
    }


@dataclass(frozen=True, slots=True)
class Rotation:
    """A key of the journal that follows another."""

    #: The key.
    key: SigningKey
    #: From when.
    not_before: datetime
    #: Until when.
    not_after: datetime


def key_history(rotations: Sequence[Rotation]) -> list[dict[str, Any]]:
    """The journal's keys, each named by the one before."""
    found: list[dict[str, Any]] = []
    previous = bytes(32)
    for index, each in enumerate(rotations):
        said = statement(
            "lockstep/key/v1",
            {
                "version": 1,
                "holder": "event-journal",
                "number": index + 1,
                "key_id": each.key.public.key_id,
                "public_key": each.key.public.octets.hex(),
                "not_before": time_text(each.not_before),
                "not_after": time_text(each.not_after),
                "previous_hash": previous.hex(),
            },
        )
        signers = [each.key] if index == 0 else [rotations[index - 1].key, each.key]
        found.append({"statement": text(said), "signatures": [mark(signer.sign(said)) for signer in signers]})
        previous = sha256(said)
    return found


@dataclass(slots=True)
class Exhibit:
    """A history, and the documents made of it."""

    #: The history.
    history: History
    #: Key that signs the log's checkpoints.
    checkpoint_key: SigningKey = field(default_factory=lambda: key_of("event-journal"))
    #: The log that the history stands in.
    log: Log = field(init=False)

    def __post_init__(self) -> None:
        self.log = Log.of(self.history)

    def bundle(self, *, batched: bool = True, anchored: bool = True) -> dict[str, Any]:
        """Everything that there is."""
        history, log, size = self.history, self.log, self.log.sealed_size
        whole = len(log.leaves)
        cosigned = notes.cosign(log.checkpoint(whole, self.checkpoint_key), WITNESS, key_of(WITNESS), WITNESSED_AT)
        path = [text(each) for each in merkle.consistency_path(log.leaves, size)]
        witnessed: dict[str, Any] = {"note": text(cosigned.note), "consistency_path": path}
        if anchored:
            witnessed["anchor"] = anchor("checkpoint", cosigned.checkpoint.root, whole, [(3, sha256(b"another"), 9)])
        document: dict[str, Any] = {
            "format": "lockstep/bundle/v1",
            "plan": {
                "header": text(canonical(header_document(history.case.header))),
                "legs": [text(canonical(leg_document(leg))) for leg in history.case.legs],
            },
            "entries": [
                {
                    "canonical_bytes": text(entry.signed),
                    "payload": text(entry.payload),
                    "signature": mark(entry.signature),
                    "leaf_index": str(place),
                    "inclusion_path": [text(each) for each in merkle.audit_path(log.leaves[:size], place)],
                }
                for entry, place in zip(history.entries, log.places, strict=True)
            ],
            "checkpoint": text(log.checkpoint(size, self.checkpoint_key).note),
            "witnessed": witnessed,
            "registration": {"record": record(history, "Registered")},
            "outcome": {"record": record(history, _STATUSES[history.outcome])},
            "gates": [_statement(each) for each in history.gates],
            "votes": [_statement(each) for each in history.in_order(history.votes)],
            "outcomes": [
                _statement(each)
                for given in (history.outcomes, history.reversals)
                for each in (given[leg.leg_id] for leg in history.case.legs if leg.leg_id in given)
            ],
        }
        if batched:
            document["registration"] = {"proof": proof(registration_leaf(history), "registrations", anchored=anchored)}
            document["outcome"] = {"proof": proof(outcome_leaf(history), "outcomes", anchored=anchored)}
        if history.audit_log:
            document["audit_log"] = text(history.audit_log)
        return document


def _statement(each: GateSignature | SignedVote | SignedOutcome) -> dict[str, Any]:
    match each:
        case GateSignature():
            return signed(each.statement.signed_bytes(), each.signature)
        case SignedVote():
            return signed(each.vote.signed_bytes(), each.signature)
        case SignedOutcome():
            return signed(each.outcome.signed_bytes(), each.signature)


def rotated() -> tuple[Exhibit, list[dict[str, Any]], dict[str, Any]]:
    """A plan whose journal changed its key after six entries; the history of its keys; a trust file that names the first one."""
    from lockstep_testkit.bundles.history import committed

    first, second = key_of("event-journal"), key_of("event-journal, second key")
    exhibit = Exhibit(committed(History(journal_keys=((first, 6), (second, 0)))), second)
    change = BEGUN + timedelta(seconds=5)
    keys = key_history([Rotation(first, KEYS_FROM, BEGUN + timedelta(hours=1)), Rotation(second, change, KEYS_UNTIL)])
    trusted = trust() | {"journal": {"origin": ORIGIN, "first_key": text(first.public.octets)}}
    return exhibit, keys, trusted
