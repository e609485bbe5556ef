"""What persons and participants have signed, as payloads record it, held against the monitor's own registry. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import orjson

from lockstep_kit.canonical import digest_of, statement, time_from_text
from lockstep_kit.ids import Digest, KeyId, sha256
from lockstep_kit.registry import Registry, Role
from lockstep_kit.resolutions import RESOLUTION_DOMAIN
from lockstep_kit.signing import Signature
from lockstep_kit.statements import OUTCOME_DOMAIN, VOTE_DOMAIN, Gate, GateSignature, GateStatement, Verdict
from lockstep_kit.values import dataclass


class Unsigned(Exception):
    """A record is not what the one whom it names has signed."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A statement that was signed, as digests over votes and evidence hold it."""

    #: SHA-256 of the statement.
    statement: str
    #: By whose key.
    key_id: str
    #: In hex.
    signature: str

    def document(self) -> dict[str, str]:
        """Inside the list that is digested."""
        return {"statement": self.statement, "key_id": self.key_id, "signature": self.signature}


@dataclass(frozen=True, slots=True)
class Said:
    """What a participant has signed about a leg."""

    #: The leg.
    leg_id: str
    #: YES or NO; or the outcome's kind.
    answer: str
    #: The statement and its signature.
    mark: Mark
    #: Who signed it; "" where the entry does not hold the statement itself.
    participant: str = ""
    #: When, by the participant's clock; None where the entry does not hold the statement itself.
    at: datetime | None = None
    #: A YES's end; None: none.
    promised_until: datetime | None = None
    #: Of a Done: the decision that its participant was told.
    decision: Digest | None = None


def gate_signature(record: dict[str, Any], plan_digest: Digest) -> GateSignature:
    """The signature that a payload records."""

    def digest(name: str) -> Digest | None:
        return Digest(bytes.fromhex(record[name])) if name in record else None

    told = GateStatement(
        gate=Gate(record["gate"]),
        verdict=Verdict(record["verdict"]),
        plan_digest=plan_digest,
        nonce=bytes.fromhex(record["nonce"]),
        expires_at=time_from_text(record["expires_at"]),
        votes_digest=digest("votes_digest"),
        evidence_digest=digest("evidence_digest"),
    )
    return GateSignature(told, signature_of(record))


def check_person(record: dict[str, Any], plan_digest: Digest, registry: Registry, moment: datetime, *, open_at: bool) -> None:
    """The gate is signed by the person named, in a role that some matrix gives it; with `open_at` also at a time at which the statement still counts.

    The journal tells neither a plan's amounts nor its matrix: limits and quorums are the participants' to check.

    Raises:
        Unsigned: it is not.
    """
    signed = gate_signature(record, plan_digest)
    gate, expires = signed.statement.gate, signed.statement.expires_at
    if open_at and moment >= expires:
        raise Unsigned(f"the gate {gate}: the signature's time was over")
    at = moment if open_at else min(moment, expires - datetime.resolution)
    actor = registry.actor_of(signed.signature, signed.statement.signed_bytes(), at)
    if actor is None:
        raise Unsigned(f"the gate {gate}: no registered key that was valid made this signature")
    if not any(actor.roles & matrix.gates[gate].roles for matrix in registry.matrices.values()):
        raise Unsigned(f"the gate {gate}: {actor.actor_id} has no role that opens it")
    if actor.actor_id != record["actor"]:
        raise Unsigned(f"the gate {gate} names {record['actor']}, and {actor.actor_id} signed it")


def check_mandate(
    mandate: dict[str, Any], plan_digest: Digest, registry: Registry, moment: datetime, barred: frozenset[str]
) -> None:
    """Two operators, neither of whom is barred, have signed this very resolution of this plan.

    Raises:
        Unsigned: they have not.
    """
    resolution = mandate["resolution"]
    if resolution["plan_digest"] != plan_digest.hex() or digest_of(resolution).hex() != mandate["digest"]:
        raise Unsigned("the resolution is about another plan, or has another digest")
    signers = set()
    for each in mandate["signatures"]:
        expires = time_from_text(each["expires_at"])
        told = {"resolution": resolution, "nonce": each["nonce"], "expires_at": each["expires_at"]}
        at = min(moment, expires - datetime.resolution)
        actor = registry.actor_of(signature_of(each), statement(RESOLUTION_DOMAIN, told), at)
        if actor is None or Role.OPERATOR not in actor.roles or actor.actor_id != each["actor"]:
            raise Unsigned(f"the resolution is not signed by {each['actor']} as an operator")
        signers.add(str(actor.actor_id))
    if len(signers) != len(mandate["signatures"]) or signers & barred:
        raise Unsigned("the operators are not two, or one of them has acted in the plan's gates")


def read_vote(leg: dict[str, Any], plan_id: str, plan_digest: Digest, registry: Registry) -> Said:
    """The vote that an entry records of a leg.

    Raises:
        Unsigned: it is not what its participant signed.
    """
    record = leg["vote"]
    told = _told(record, VOTE_DOMAIN)
    if told is None:
        return Said(leg["leg_id"], record["vote"], _mark(record))
    answer = "YES" if "promise" in told else "NO"
    until = told.get("promise", {}).get("expires_at")
    return _said(leg, record, told, (plan_id, plan_digest), registry, "voted_at", answer, until=until)


def read_outcome(leg: dict[str, Any], name: str, plan_id: str, plan_digest: Digest, registry: Registry) -> Said:
    """The outcome (or, as `reversal`, the answer to an order to reverse) that an entry records of a leg.

    Raises:
        Unsigned: it is not what its participant signed.
    """
    record = leg[name]
    told = _told(record, OUTCOME_DOMAIN)
    if told is None:
        return Said(leg["leg_id"], record["kind"], _mark(record))
    return _said(leg, record, told, (plan_id, plan_digest), registry, "settled_at", told.get("kind", ""))


def _told(record: dict[str, Any], domain: str) -> dict[str, Any] | None:
    """What the statement in a record says; None where the record does not hold it."""
    if "statement" not in record:
        return None
    octets = record["statement"].encode()
    if sha256(octets).hex() != record["statement_sha256"]:
        raise Unsigned("the statement is not the one that was hashed")
    named, _, written = octets.partition(b"\n")
    try:
        told = orjson.loads(written)
        same = isinstance(told, dict) and statement(domain, told) == octets
    except (ValueError, TypeError, RecursionError):
        same = False
    if named != domain.encode() or not same:
        raise Unsigned(f"the statement is none of {domain}")
    found: dict[str, Any] = told
    return found


#: What a record names its answer by.
_ANSWERS: Final = ("vote", "kind")


def _said(
    leg: dict[str, Any],
    record: dict[str, Any],
    told: dict[str, Any],
    plan: tuple[str, Digest],
    registry: Registry,
    clock: str,
    answer: str,
    *,
    until: str | None = None,
) -> Said:
    recorded = next(record[name] for name in _ANSWERS if name in record)
    try:
        about = (told["plan_id"], told["plan_digest"], told["leg_id"])
        at = time_from_text(told[clock])
        decision = Digest(bytes.fromhex(told["decision"])) if "decision" in told else None
        promised_until = time_from_text(until) if until is not None else None
        participant = str(told["participant"])
    except (KeyError, ValueError, TypeError):
        raise Unsigned("the statement lacks what it must say") from None
    if about != (plan[0], plan[1].hex(), leg["leg_id"]):
        raise Unsigned("the statement is about another plan or leg")
    if answer != recorded:
        raise Unsigned(f"the entry says {recorded}, and {answer} was signed")
    who = registry.participant_of(signature_of(record), record["statement"].encode(), at)
    if who is None or who.name != participant:
        raise Unsigned(f"the statement is not signed by {participant}")
    return Said(leg["leg_id"], answer, _mark(record), participant, at, promised_until, decision)


def signature_of(record: dict[str, Any]) -> Signature:
    """The signature in a record."""
    return Signature(KeyId(record["key_id"]), bytes.fromhex(record["signature"]))


def _mark(record: dict[str, Any]) -> Mark:
    return Mark(record["statement_sha256"], record["key_id"], record["signature"])


def digest_over(marks: Sequence[Mark]) -> Digest:
    """The digest over votes or outcomes, in plan order."""
    return digest_of([each.document() for each in marks])
