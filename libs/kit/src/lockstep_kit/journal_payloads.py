"""What the payload of each journal event holds: one table, by which the coordinator writes, the journal checks, and readers read. Pure.

A payload is an RFC 8785 object that names its version. It holds the fields of its event type and no others; a change of what it holds is another version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from lockstep_kit.amounts import SCALE_MAX
from lockstep_kit.certificate import Decision
from lockstep_kit.document_forms import Flag, Form, Hex, OneOf, Pattern, Several, Shape, Tagged, Text, Time, Whole
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.participant.ports import PlanOutcome
from lockstep_kit.plan import LEGS_MAX, LegKind
from lockstep_kit.resolutions import SIGNERS, Verb
from lockstep_kit.statements import Gate, OutcomeKind, Verdict

#: Version of every payload that is written.
VERSION: Final = 1

#: The plan's states, as transitions name them.
STATES: Final = (
    "DRAFT",
    "INITIATED",
    "PRECONDITIONS_PENDING",
    "READY_FOR_PREPARE",
    "PREPARED",
    "EXECUTING",
    "VALIDATING",
    "COMMITTED",
    "CLOSED",
    "ABORTED",
    "PARTIALLY_EXECUTED",
    "UNWIND_PENDING",
)

_ANY: Final = Text(empty=True)
_SOME: Final = Text()
_DIGEST: Final = Hex(32)
_MAYBE_DIGEST: Final = Hex(32, empty=True)
_OCTETS: Final = Hex(None)
_KEY_ID: Final = Hex(8)
_SIGNATURE: Final = Hex(64)
_CODE: Final = Pattern(re.compile(r"[A-Z][A-Z0-9_]{0,127}"), "must be an UPPER_SNAKE name")
_LEG_ID: Final = Pattern(re.compile(r"[a-z0-9][a-z0-9-]{0,30}"), "must be a leg's id")
_MAYBE_LEG_ID: Final = Pattern(re.compile(r"([a-z0-9][a-z0-9-]{0,30})?"), "must be a leg's id, or empty")

TRANSITION: Final = Shape(
    "transition",
    {
        "transition_no": Whole(1),
        "from": OneOf(("", *STATES)),
        "to": OneOf(STATES),
        "decision": OneOf(("", *Decision)),
        "cause": _CODE,
    },
    {},
)
#: The journal's own: it is told where the plan stands, and not why it goes on.
SEALING: Final = Shape("sealing transition", {"transition_no": Whole(1), "from": OneOf(STATES), "to": OneOf(("CLOSED",))}, {})
REFUSAL: Final = Shape("refusal", {"reason": _SOME, "outside_code": _ANY, "detail": _ANY}, {})
_SIGNED: Final[Mapping[str, Form]] = {"statement_sha256": _DIGEST, "key_id": _KEY_ID, "signature": _SIGNATURE}
VOTE: Final = Shape("vote", {**_SIGNED, "vote": OneOf(("YES", "NO"))}, {"refusal": REFUSAL, "statement": _SOME})
OUTCOME: Final = Shape("outcome", {**_SIGNED, "kind": OneOf(tuple(OutcomeKind))}, {"refusal": REFUSAL, "statement": _SOME})
_LEG: Final[Mapping[str, Form]] = {"leg_id": _LEG_ID, "kind": OneOf(tuple(LegKind))}
LEG: Final = Shape("leg", _LEG, {"vote": VOTE, "outcome": OUTCOME, "reversal": OUTCOME})
GATE: Final = Shape(
    "gate",
    {
        "gate": OneOf(tuple(Gate)),
        "verdict": OneOf(tuple(Verdict)),
        "actor": _SOME,
        "nonce": Hex(16),
        "expires_at": Time(),
        "key_id": _KEY_ID,
        "signature": _SIGNATURE,
    },
    {"votes_digest": _DIGEST, "evidence_digest": _DIGEST},
)
#: What else persons have signed that no event before tells of.
_FURTHER: Final[Mapping[str, Form]] = {"further_gates": Several(GATE, 1, 64)}
DECISION: Final = Shape(
    "decision",
    {
        "delegate": _MAYBE_LEG_ID,
        "decided_at": Time(empty=True),
        "votes_digest": _MAYBE_DIGEST,
        "gates": Several(GATE, 0, 16),
    },
    # All legs in plan order: the votes' digest is over them in this order.
    {"legs": Several(_LEG_ID, 1, LEGS_MAX)},
)
#: What of an escalation its record on chain is made from (`escalations`), beside reason, leg and time.
ESCALATION: Final = Shape(
    "escalation",
    {
        "escalation_id": _SOME,
        "at_risk": Several(
            Shape(
                "amount",
                {
                    "asset": _SOME,
                    "minor_units": Pattern(re.compile(r"[1-9][0-9]{0,77}"), "must be decimal digits"),
                    "scale": Whole(0, SCALE_MAX),
                },
                {},
            ),
            0,
            256,
        ),
    },
    {},
)
REASON: Final = Shape("reason", {"reason": _SOME, "detail": _ANY}, {})


def _evidence(kind: str, fields: Mapping[str, Form]) -> Shape:
    return Shape(f"evidence of the kind {kind}", {"kind": OneOf((kind,)), **fields}, {})


EVIDENCE: Final = Tagged(
    "evidence",
    {
        "chain": _evidence(
            "chain",
            {
                "chain": _ANY,
                "contract": _ANY,
                "entry_key": _OCTETS,
                "entry_status": _ANY,
                "transaction_hash": _OCTETS,
                "block_number": Whole(0),
                "block_hash": _OCTETS,
            },
        ),
        "bank": _evidence(
            "bank",
            {
                "bank_bic": _ANY,
                "uetr": _ANY,
                "status": _ANY,
                "message_id": _ANY,
                "message_sha256": _OCTETS,
                "booking_reference": _ANY,
                "booking_sha256": _OCTETS,
            },
        ),
        "instrument": _evidence(
            "instrument",
            {
                "bank_bic": _ANY,
                "reference": _ANY,
                "undertaking_number": _ANY,
                "status": _ANY,
                "message_id": _ANY,
                "message_sha256": _OCTETS,
                "issuance_sha256": _OCTETS,
            },
        ),
        "journal": _evidence("journal", {"entry_count": Whole(0), "head_hash": _OCTETS, "sealed": Flag()}),
    },
)
RESOLUTION: Final = Shape(
    "resolution",
    {
        "plan_digest": _DIGEST,
        "escalation_id": _SOME,
        "verb": OneOf(tuple(Verb)),
        "leg_id": _MAYBE_LEG_ID,
        "detail": _ANY,
    },
    {"executed": Flag(), "evidence": EVIDENCE},
)
OPERATOR: Final = Shape(
    "operator's signature",
    {"actor": _SOME, "nonce": Hex(16), "expires_at": Time(), "key_id": _KEY_ID, "signature": _SIGNATURE},
    {},
)
MANDATE: Final = Shape(
    "mandate",
    {"resolution": RESOLUTION, "digest": _DIGEST, "signatures": Several(OPERATOR, SIGNERS, SIGNERS)},
    {},
)


def _payload(name: str, required: Mapping[str, Form], optional: Mapping[str, Form] | None = None) -> Shape:
    always: Mapping[str, Form] = {"version": Whole(VERSION, VERSION), "plan_digest": _DIGEST}
    return Shape(name, {**always, **required}, optional or {})


#: What the payload of each event type holds; there are no other types.
PAYLOADS: Final[Mapping[str, Shape]] = {
    shape.name: shape
    for shape in (
        _payload("plan.created", {"transition": TRANSITION, "gate": GATE}),
        _payload("plan.initiated", {"transition": TRANSITION}),
        _payload("plan.ready", {"transition": TRANSITION}),
        _payload("leg.prepared", {"leg": LEG}),
        _payload("leg.refused", {"leg": LEG}),
        _payload("plan.approved", {"transition": TRANSITION, "gate": GATE}, _FURTHER),
        _payload("plan.released", {"transition": TRANSITION, "gate": GATE, "decision": DECISION}, _FURTHER),
        _payload("leg.executed", {"leg": LEG}, {"transition": TRANSITION}),
        _payload("evidence.validated", {"gate": GATE, "evidence_digest": _DIGEST}),
        _payload("plan.committed", {"transition": TRANSITION, "evidence_digest": _DIGEST}),
        _payload("plan.aborted", {"transition": TRANSITION}, {"leg": LEG, "gate": GATE, "reason": REASON, **_FURTHER}),
        _payload(
            "exception.raised", {"reason": REASON}, {"transition": TRANSITION, "leg": LEG, "gate": GATE, "escalation": ESCALATION}
        ),
        _payload("exception.resolved", {}, {"transition": TRANSITION, "leg": LEG, "resolution": MANDATE, "reason": REASON}),
        _payload("leg.reversed", {"leg": LEG}),
        Shape(
            "plan.closed",
            {
                "version": Whole(VERSION, VERSION),
                "outcome": OneOf(tuple(PlanOutcome)),
                "evidence_digest": _DIGEST,
                "transition": SEALING,
                "entry_count": Whole(1),
                "head_hash": _DIGEST,
            },
            {},
        ),
    )
}


def check_payload(event_type: str, document: Any) -> None:
    """Hold a payload against what its event type holds.

    Raises:
        FieldInvalid: the first rule that is broken; the field is a path inside the payload, as ``payload.leg.vote.signature``.
    """
    try:
        PAYLOADS[event_type].check(document)
    except FieldInvalid as finding:
        raise finding.under("payload") from None
