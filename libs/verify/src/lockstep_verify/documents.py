"""Forms of the documents that a verifier reads: bundle, trust file, and what is signed inside (docs/bundle.md). Pure."""

from __future__ import annotations

import re
from typing import Final

from lockstep_verify.forms import Flag, Integer, Number, Octets, OneOf, Several, Shape, Text
from lockstep_verify.registry import MATRICES, Asset, Units, persons

BUNDLE_FORMAT: Final = "lockstep/bundle/v1"
TRUST_FORMAT: Final = "lockstep/trust/v1"
DOCUMENT_BYTES_MAX: Final = 64 << 20
ENTRIES_MAX: Final = 10_000
LEGS_MAX: Final = 64

_UUID: Final = Text(
    re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"), "must be a lower-case UUID"
)
_TIME: Final = Text(
    re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{6}Z"),
    "must be a UTC time with six decimals, as 2026-01-01T00:00:00.000000Z",
)
_ANY: Final = Text(re.compile(r"[\s\S]*"), "must be a string")
_SOME: Final = Text(re.compile(r"[\s\S]+"), "must be a string that is not empty")
_NAME: Final = Text(re.compile(r"[!-*,-~]{1,255}"), "must be 1 to 255 visible ASCII characters without a plus")
_LEG_ID: Final = Text(re.compile(r"[a-z0-9][a-z0-9-]{0,30}"), "must be the id of a leg")
_MAYBE_LEG_ID: Final = Text(re.compile(r"([a-z0-9][a-z0-9-]{0,30})?"), "must be the id of a leg, or empty")
_CHAIN: Final = Text(re.compile(r"eip155:[1-9][0-9]{0,17}"), "must be a CAIP-2 id of an EVM chain")
_ADDRESS: Final = Text(re.compile(r"0x[0-9a-fA-F]{40}"), "must be 0x and 40 hex digits")
_HASH: Final = Octets(32, 32)
_STATEMENT: Final = Octets(1, 65_536)
_PATH: Final = Several(_HASH, 0, 64)


def _hex(octets: int) -> Text:
    return Text(re.compile(rf"[0-9a-f]{{{2 * octets}}}"), f"must be the lower-case hex of {octets} bytes")


_DIGEST: Final = _hex(32)
_KEY_ID: Final = _hex(8)
_MAYBE_DIGEST: Final = Text(re.compile(r"([0-9a-f]{64})?"), "must be the lower-case hex of 32 bytes, or empty")

# -- the bundle --------------------------------------------------------------------------------------------------------

_SIGNATURE: Final = Shape({"key_id": _KEY_ID, "signature": Octets(64, 64)})
_SIGNED: Final = Shape({"statement": _STATEMENT, "signature": _SIGNATURE})
_ANCHOR: Final = Shape(
    {
        "kind": OneOf(("checkpoint", "registrations", "outcomes")),
        "root": _HASH,
        "size": Number(),
        "chain": _CHAIN,
        "registry": _ADDRESS,
        "block_number": Number(),
        "block_hash": _HASH,
    },
    {"raw_transaction": Octets(1, 131_072)},
)
_PROOF: Final = Shape(
    {"leaf_data": _STATEMENT, "leaf_index": Number(), "tree_size": Number(), "path": _PATH, "root": _HASH}, {"anchor": _ANCHOR}
)
_RECORD: Final = Shape(
    {
        "chain": _CHAIN,
        "registry": _ADDRESS,
        "entry_key": _HASH,
        "entry_status": _SOME,
        "block_number": Number(),
        "block_hash": _HASH,
    },
    {"transaction_hash": _HASH},
)
_NOTARISED: Final = Shape({}, {"proof": _PROOF, "record": _RECORD})

BUNDLE: Final = Shape(
    {
        "format": OneOf((BUNDLE_FORMAT,)),
        "plan": Shape({"header": _STATEMENT, "legs": Several(_STATEMENT, 1, LEGS_MAX)}),
        "entries": Several(
            Shape(
                {"canonical_bytes": _STATEMENT, "signature": _SIGNATURE, "leaf_index": Number(), "inclusion_path": _PATH},
                {"payload": Octets(1, 65_536)},
            ),
            1,
            ENTRIES_MAX,
        ),
        "checkpoint": Octets(1, 16_384),
    },
    {
        "journal_keys": Several(Shape({"statement": _STATEMENT, "signatures": Several(_SIGNATURE, 1, 2)}), 1, 1_000),
        "witnessed": Shape({"note": Octets(1, 16_384), "consistency_path": _PATH}, {"anchor": _ANCHOR}),
        "registration": _NOTARISED,
        "outcome": _NOTARISED,
        "gates": Several(_SIGNED, 0, 64),
        "votes": Several(_SIGNED, 0, LEGS_MAX),
        "outcomes": Several(_SIGNED, 0, 2 * LEGS_MAX),
        "audit_log": Octets(1, 8 << 20),
    },
)

# -- the trust file ----------------------------------------------------------------------------------------------------

_KEYS: Final = Several(Shape({"public_key": _HASH, "not_before": _TIME, "not_after": _TIME}), 1, 1_000)

TRUST: Final = Shape(
    {"format": OneOf((TRUST_FORMAT,))},
    {
        "journal": Shape({"origin": _NAME}, {"keys": _KEYS, "first_key": _HASH}),
        "witness": Shape({"name": _NAME, "keys": Several(_HASH, 1, 100)}),
        "chain": Shape({"chain": _CHAIN, "registry": _ADDRESS}, {"accounts": Several(_ADDRESS, 1, 100)}),
        "participants": Several(Shape({"name": _SOME, "keys": _KEYS}), 0, 1_000),
        "persons": persons(_KEYS),
        "matrices": MATRICES,
    },
)

# -- what is signed ----------------------------------------------------------------------------------------------------

HEADER: Final = Shape(
    {
        "format": OneOf(("lockstep/plan/v1",)),
        "plan_id": _UUID,
        "reference": _ANY,
        "parties": Several(Shape({"party_id": _SOME, "name": _SOME, "lei": _ANY}), 1, 32),
        "deadline": _TIME,
        "policy": Shape({"accept_expiry_risk": Flag(), "unwind_automatically": Flag()}),
        "sod_version": Integer(1),
        "leg_count": Integer(1, LEGS_MAX),
        "legs_root": _DIGEST,
    }
)
SETTLING_KINDS: Final = ("token_transfer", "credit_transfer", "issue_instrument")
LEG: Final = Shape(
    {
        "format": OneOf(("lockstep/leg/v1",)),
        "leg_id": _LEG_ID,
        "salt": _hex(16),
        "depends_on": Several(_LEG_ID, 0, LEGS_MAX),
        "kind": OneOf((*SETTLING_KINDS, "notarisation", "journal")),
        "terms": Shape({}, open=True),
    }
)


def _amount(asset: Asset) -> Shape:
    return Shape({"amount": Shape({"asset": asset, "minor_units": Units(), "scale": Integer(0, 36)})}, open=True)


#: Terms of the legs that move value, as far as they are read.
TERMS: Final = {
    "token_transfer": _amount(Asset(currency=False)),
    "credit_transfer": _amount(Asset(token=False)),
    "issue_instrument": _amount(Asset(token=False)),
}
CREATED: Final = "plan.created"
CLOSED: Final = "plan.closed"
EVENT_TYPES: Final = (
    CREATED,
    "plan.initiated",
    "plan.ready",
    "leg.prepared",
    "leg.refused",
    "plan.approved",
    "plan.released",
    "leg.executed",
    "evidence.validated",
    "plan.committed",
    "plan.aborted",
    "exception.raised",
    "exception.resolved",
    "leg.reversed",
    CLOSED,
)
ENTRY: Final = Shape(
    {
        "version": Integer(1, 1),
        "plan_id": _UUID,
        "sequence": Integer(1),
        "event_id": _SOME,
        "type": OneOf(EVENT_TYPES),
        "actor": _SOME,
        "actor_role": _SOME,
        "event_time": _TIME,
        "payload_hash": _DIGEST,
        "previous_hash": _DIGEST,
        "key_id": _KEY_ID,
    }
)
KEY: Final = Shape(
    {
        "version": Integer(1, 1),
        "holder": _SOME,
        "number": Integer(1),
        "key_id": _KEY_ID,
        "public_key": _DIGEST,
        "not_before": _TIME,
        "not_after": _TIME,
        "previous_hash": _DIGEST,
    }
)
_GATE: Final = OneOf(("MAKE", "APPROVE", "RELEASE", "VALIDATE", "CANCEL"))
_VERDICT: Final = OneOf(("APPROVE", "REJECT"))
GATE: Final = Shape(
    {"gate": _GATE, "verdict": _VERDICT, "plan_digest": _DIGEST, "nonce": _hex(16), "expires_at": _TIME},
    {"votes_digest": _DIGEST, "evidence_digest": _DIGEST},
)
_EVIDENCE: Final = Shape({"kind": _SOME}, open=True)
_REFUSAL: Final = Shape({"reason": _SOME, "outside_code": _ANY, "detail": _ANY})
_ABOUT: Final = {"participant": _SOME, "plan_id": _UUID, "plan_digest": _DIGEST, "leg_id": _LEG_ID}
VOTE: Final = Shape(
    {**_ABOUT, "lock": _DIGEST, "voted_at": _TIME},
    {
        "promise": Shape({"kind": OneOf(("GUARANTEED", "BEST_EFFORT"))}, {"expires_at": _TIME, "evidence": _EVIDENCE}),
        "refusal": _REFUSAL,
    },
)
OUTCOME_KINDS: Final = ("DONE", "REFUSED", "RELEASED", "REVERSED", "REVERSAL_REFUSED")
OUTCOME: Final = Shape(
    {**_ABOUT, "kind": OneOf(OUTCOME_KINDS), "revision": Integer(0), "settled_at": _TIME},
    {"evidence": _EVIDENCE, "refusal": _REFUSAL, "order": _DIGEST, "decision": _DIGEST},
)
BANK_EVIDENCE: Final = Shape(
    {
        "bank_bic": _ANY,
        "uetr": _UUID,
        "status": _ANY,
        "message_id": _ANY,
        "message_sha256": _MAYBE_DIGEST,
        "booking_reference": _ANY,
        "booking_sha256": _MAYBE_DIGEST,
    },
    open=True,
)
INSTRUMENT_EVIDENCE: Final = Shape(
    {"reference": _ANY, "undertaking_number": _ANY, "status": _ANY, "message_id": _ANY, "message_sha256": _MAYBE_DIGEST}, open=True
)
LEAF_DOMAIN: Final = "lockstep/anchor/v1"
REGISTRATION_LEAF: Final = Shape({"version": Integer(1, 1), "kind": OneOf(("registration",)), "plan_digest": _DIGEST})
OUTCOME_LEAF: Final = Shape(
    {
        "version": Integer(1, 1),
        "kind": OneOf(("outcome",)),
        "plan_digest": _DIGEST,
        "outcome": OneOf(("Committed", "Aborted", "Mixed")),
        "evidence_digest": _DIGEST,
    }
)

# -- payloads: what is read of them; the rest is hashed like everything else -----------------------------------------------

_MARK: Final = {"key_id": _KEY_ID, "signature": _hex(64)}
_GATE_RECORD: Final = Shape(
    {"gate": _GATE, "verdict": _VERDICT, "actor": _SOME, "nonce": _hex(16), "expires_at": _TIME, **_MARK},
    {"votes_digest": _DIGEST, "evidence_digest": _DIGEST},
)
_TRANSITION: Final = Shape({"transition_no": Integer(1), "from": _ANY, "to": _SOME}, {"decision": _ANY, "cause": _SOME})
#: A statement itself is in the bundle beside; where a payload has it too, that is hashed like the rest.
_OUTCOME_RECORD: Final = Shape(
    {"statement_sha256": _DIGEST, "kind": OneOf(OUTCOME_KINDS), **_MARK}, {"refusal": _REFUSAL, "statement": _SOME}
)
_LEG_RECORD: Final = Shape(
    {"leg_id": _LEG_ID, "kind": _SOME},
    {
        "vote": Shape(
            {"statement_sha256": _DIGEST, "vote": OneOf(("YES", "NO")), **_MARK}, {"refusal": _REFUSAL, "statement": _SOME}
        ),
        "outcome": _OUTCOME_RECORD,
        "reversal": _OUTCOME_RECORD,
    },
)
_DECISION: Final = Shape(
    {"delegate": _MAYBE_LEG_ID, "decided_at": _TIME, "votes_digest": _DIGEST, "gates": Several(_GATE_RECORD, 0, 16)},
    {"legs": Several(_LEG_ID, 1, 64)},
)
_RESOLUTION: Final = Shape(
    {
        "plan_digest": _DIGEST,
        "escalation_id": _SOME,
        "verb": OneOf(("RETRY", "REVERSE", "RESOLVE", "FORGET")),
        "leg_id": _MAYBE_LEG_ID,
        "detail": _ANY,
    },
    {"executed": Flag(), "evidence": _EVIDENCE},
)
_OPERATOR: Final = Shape({"actor": _SOME, "nonce": _hex(16), "expires_at": _TIME, **_MARK})
PAYLOAD: Final = Shape(
    {},
    {
        "resolution": Shape({"resolution": _RESOLUTION, "digest": _DIGEST, "signatures": Several(_OPERATOR, 0, 16)}),
        "escalation": Shape({"escalation_id": _SOME}, open=True),
        "plan_digest": _DIGEST,
        "transition": _TRANSITION,
        "leg": _LEG_RECORD,
        "gate": _GATE_RECORD,
        "further_gates": Several(_GATE_RECORD, 1, 64),
        "decision": _DECISION,
        "evidence_digest": _DIGEST,
    },
    open=True,
)
SEAL_OUTCOMES: Final = ("COMMITTED", "ABORTED", "REVERSED", "MIXED")
SEAL: Final = Shape(
    {
        "outcome": OneOf(SEAL_OUTCOMES),
        "evidence_digest": _DIGEST,
        "transition": Shape({"transition_no": Integer(1), "from": _SOME, "to": OneOf(("CLOSED",))}),
        "entry_count": Integer(1),
        "head_hash": _DIGEST,
    },
    {"version": Integer(1, 1)},
)
