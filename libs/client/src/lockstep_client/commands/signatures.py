"""What a person signs, shown before it is signed and computed here, never taken over from the coordinator."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from lockstep_client.commands.context import Refused
from lockstep_client.convert import PlanView
from lockstep_client.evidence import Finding, check_votes
from lockstep_client.making import check_bound
from lockstep_kit.fields import require
from lockstep_kit.ids import NONCE_BYTES, Digest
from lockstep_kit.instruments import IssueInstrument
from lockstep_kit.plan import Anchoring, CreditTransfer, Leg, Notarisation, TokenTransfer
from lockstep_kit.registry import Registry
from lockstep_kit.signing import Signer
from lockstep_kit.statements import (
    Gate,
    GateSignature,
    GateStatement,
    SignedOutcome,
    SignedVote,
    Verdict,
    evidence_digest,
    sign_gate,
    votes_digest,
)
from lockstep_kit.values import dataclass

#: A signature must be good when the decision is written, and until the last participant has looked at it; clocks differ.
_AFTER_DEADLINE: Final = timedelta(minutes=10)
#: What has no deadline is good for this long.
_UNBOUNDED: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Statement:
    """What is about to be signed."""

    #: What is decided.
    gate: Gate
    #: How.
    verdict: Verdict
    #: The plan, as it was checked.
    view: PlanView
    #: Release: digest over the votes, recomputed.
    votes_digest: Digest | None
    #: Validate: digest over the outcomes, recomputed.
    evidence_digest: Digest | None
    #: When the signature stops being good.
    expires_at: datetime
    #: What makes it one of its kind: 16 random bytes.
    nonce: bytes

    def message(self) -> GateStatement:
        """What the signature is over."""
        return GateStatement(
            self.gate,
            self.verdict,
            self.view.header.digest,
            self.nonce,
            self.expires_at,
            votes_digest=self.votes_digest,
            evidence_digest=self.evidence_digest,
        )

    def lines(self) -> list[str]:
        """For the person who signs."""
        shown = [
            f"you sign   {self.gate} {self.verdict}",
            f"plan       {self.view.header.plan_id}  {self.view.header.reference}".rstrip(),
            f"digest     {self.view.header.digest.hex()}",
            f"deadline   {self.view.header.deadline.isoformat()}",
        ]
        for each in self.view.legs:
            vote = "" if each.vote is None else "  voted YES" if each.vote.vote.promise is not None else "  voted NO"
            shown.append(f"leg        {each.leg.leg_id}: {leg_text(each.leg)}{vote if self.votes_digest else ''}")
        if self.votes_digest is not None:
            shown.append(f"votes      {self.votes_digest.hex()}")
        if self.evidence_digest is not None:
            shown.append(f"evidence   {self.evidence_digest.hex()}")
        shown.append(f"good until {self.expires_at.isoformat()}")
        return shown

    def signed(self, key: Signer) -> GateSignature:
        """The statement, signed.

        Raises:
            FieldInvalid: it lacks a field or has one too many.
        """
        message = self.message()
        message.check()
        return sign_gate(message, key)


def leg_text(leg: Leg) -> str:
    """Everything of a leg that moves value or names a place."""
    match leg.terms:
        case TokenTransfer() as token:
            return f"{token.amount} from {token.payer} ({token.payer_party}) to {token.payee} ({token.payee_party}) by escrow {token.escrow}"
        case CreditTransfer() as credit:
            debtor, creditor = credit.debtor, credit.creditor
            between = (
                f", between the institutions {debtor.institution_bic} and {creditor.institution_bic}"
                if debtor.institution_bic
                else ""
            )
            return f"{credit.amount} from {debtor.iban} {debtor.agent_bic} ({debtor.name}) to {creditor.iban} {creditor.agent_bic} ({creditor.name}){between}"
        case IssueInstrument() as instrument:
            return (
                f"undertaking ({instrument.form}, {instrument.governing_rules}) of {instrument.amount} by {instrument.issuing_bic} for"
                f" {instrument.applicant.name} (account {instrument.applicant_account}) in favour of {instrument.beneficiary.name},"
                f" {instrument.beneficiary.town}, advised by {instrument.advising_bic}, until {instrument.expiry_date} in"
                f" {instrument.expiry_place}, terms {instrument.terms.name} (SHA-256 {instrument.terms.sha256.hex()})"
            )
        case Notarisation() as notarisation:
            batches = {None: "", Anchoring.BATCHED: ", in batches", Anchoring.DEFERRED: ", in batches, after the plan has gone on"}
            return f"notarised in {notarisation.registry} on {notarisation.chain}{batches[notarisation.anchoring]}"
        case _:
            return "recorded in the event journal"


def statement(
    gate: Gate, verdict: Verdict, view: PlanView, registry: Registry, until: datetime | None, nonce: bytes | None = None
) -> Statement:
    """What the gate's statement says about this plan; good for as long as the gate asks for, and with a fresh nonce, where neither is given.

    Raises:
        FieldInvalid: the coordinator shows legs that are not the plan's.
        Refused: what is to be signed is not complete, or what the coordinator shows does not hold.
    """
    check_bound(view)
    votes = evidence = None
    if gate is Gate.RELEASE:
        votes = _votes(view, registry, verdict)
    if gate is Gate.VALIDATE:
        evidence = _outcomes(view, verdict)
    return Statement(gate, verdict, view, votes, evidence, until or _until(gate, view), nonce or secrets.token_bytes(NONCE_BYTES))


def _until(gate: Gate, view: PlanView) -> datetime:
    now = datetime.now(UTC)
    return now + _UNBOUNDED if gate is Gate.VALIDATE else max(view.header.deadline, now) + _AFTER_DEADLINE


def _votes(view: PlanView, registry: Registry, verdict: Verdict) -> Digest | None:
    """The digest over every leg's YES, each checked against the signer's own registry."""
    votes: list[SignedVote] = [each.vote for each in view.legs if each.vote is not None]
    complete = len(votes) == len(view.legs)
    if verdict is Verdict.REJECT:
        return votes_digest(votes) if complete else None
    if not complete:
        raise Refused("VOTES_INCOMPLETE", f"{len(votes)} of {len(view.legs)} legs have voted; sign the release when all have")
    refuse_over(check_votes(view, registry), "the votes do not hold")
    digest = votes_digest(votes)
    if view.votes_digest != digest:
        raise Refused(
            "VOTES_DIGEST_DIFFERS",
            "the coordinator names another digest than that of the votes it shows; do not sign, call an operator",
        )
    return digest


def _outcomes(view: PlanView, verdict: Verdict) -> Digest | None:
    outcomes: list[SignedOutcome] = [each.outcome for each in view.legs if each.leg.settling and each.outcome is not None]
    shown = sum(each.leg.settling and each.evidence is not None for each in view.legs)
    complete = shown == sum(each.leg.settling for each in view.legs)
    if not complete and verdict is Verdict.APPROVE:
        raise Refused("OUTCOMES_INCOMPLETE", "not every settling leg is done; sign when the plan is VALIDATING")
    return evidence_digest(outcomes) if complete else None


def read_nonce(text: str) -> bytes:
    """A nonce that was shown with the bytes to sign.

    Raises:
        FieldInvalid: another form.
    """
    require(
        re.fullmatch(f"[0-9a-f]{{{2 * NONCE_BYTES}}}", text) is not None, "--nonce", f"must be {2 * NONCE_BYTES} small hex digits"
    )
    return bytes.fromhex(text)


def refuse_over(findings: Sequence[Finding], what: str) -> None:
    """Refuse when something does not hold.

    Raises:
        Refused: with the first finding's rule, and all of them as details.
    """
    if not findings:
        return
    lines = "; ".join(f"{each.rule} {each.leg_id} {each.message}".replace("  ", " ") for each in findings)
    details = [{"rule": each.rule, "leg_id": each.leg_id, "message": each.message, "may_pass": each.may_pass} for each in findings]
    raise Refused(findings[0].rule, f"{what}, nothing was signed: {lines}", {"findings": details})


def cancel_signature(key: Signer, view: PlanView) -> GateSignature:
    """A person's signature that stops the plan."""
    check_bound(view)
    until = datetime.now(UTC) + _UNBOUNDED
    return Statement(Gate.CANCEL, Verdict.APPROVE, view, None, None, until, secrets.token_bytes(NONCE_BYTES)).signed(key)
