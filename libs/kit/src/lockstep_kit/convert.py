"""Between protobuf and domain, both ways, for what all services share. The only module of the kit that knows both.

`*_from_pb` checks form (absent fields first) and raises FieldInvalid with the field's path; `*_to_pb` never fails.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from lockstep.participant.v1 import leg_pb2
from lockstep.type.v1 import amount_pb2, certificate_pb2, outcome_pb2, plan_pb2, signature_pb2
from lockstep_kit import ids, plan, statements
from lockstep_kit.amounts import Amount, amount_of
from lockstep_kit.certificate import AbortAuthority, Binding, Certificate, DeadlinePassed, Decision
from lockstep_kit.fence import Epoch
from lockstep_kit.fields import FieldInvalid, require, within
from lockstep_kit.signing import Signature
from lockstep_kit.statements import Gate, OutcomeKind, PromiseKind, Verdict

#: First second of the year 9999: what is added to a time stays one that can be written down.
_SECONDS_END: Final = 253_370_764_800
#: Canonical bytes hold integers of at most 53 bits.
_COUNT_END: Final = 2**53

_K = TypeVar("_K")
_V = TypeVar("_V")

GATES: Final = {
    signature_pb2.GATE_MAKE: Gate.MAKE,
    signature_pb2.GATE_APPROVE: Gate.APPROVE,
    signature_pb2.GATE_RELEASE: Gate.RELEASE,
    signature_pb2.GATE_VALIDATE: Gate.VALIDATE,
    signature_pb2.GATE_CANCEL: Gate.CANCEL,
}
VERDICTS: Final = {signature_pb2.VERDICT_APPROVE: Verdict.APPROVE, signature_pb2.VERDICT_REJECT: Verdict.REJECT}
DECISIONS: Final = {
    certificate_pb2.DECISION_COMMIT: Decision.COMMIT,
    certificate_pb2.DECISION_ABORT: Decision.ABORT,
    certificate_pb2.DECISION_DELEGATED: Decision.DELEGATED,
}
PROMISES: Final = {
    outcome_pb2.PROMISE_KIND_GUARANTEED: PromiseKind.GUARANTEED,
    outcome_pb2.PROMISE_KIND_BEST_EFFORT: PromiseKind.BEST_EFFORT,
}
OUTCOMES: Final = {
    outcome_pb2.OUTCOME_KIND_DONE: OutcomeKind.DONE,
    outcome_pb2.OUTCOME_KIND_REFUSED: OutcomeKind.REFUSED,
    outcome_pb2.OUTCOME_KIND_RELEASED: OutcomeKind.RELEASED,
}
BEARERS: Final = {
    plan_pb2.CHARGE_BEARER_DEBTOR: plan.ChargeBearer.DEBTOR,
    plan_pb2.CHARGE_BEARER_SHARED: plan.ChargeBearer.SHARED,
    plan_pb2.CHARGE_BEARER_SERVICE_LEVEL: plan.ChargeBearer.SERVICE_LEVEL,
}


def enum_from_pb(known: dict[_K, _V], value: _K, field: str) -> _V:
    """The domain's value of an enum; unspecified and unknown numbers are refused."""
    if value not in known:
        raise FieldInvalid(field, "must be one of the values that this version knows")
    return known[value]


def enum_to_pb(known: dict[_K, _V], value: _V) -> _K:
    """The protobuf number of a domain value."""
    return next(number for number, each in known.items() if each == value)


def time_from_pb(message: Timestamp, field: str) -> datetime:
    """A moment in UTC, to the microsecond; finer parts are refused, since they would not survive the database."""
    if not 0 <= message.nanos < 1_000_000_000 or message.nanos % 1000:
        raise FieldInvalid(field, "must be a time with microseconds at the finest")
    require(0 <= message.seconds < _SECONDS_END, field, "must be a time of the years 1970 to 9998")
    return datetime.fromtimestamp(message.seconds, UTC).replace(microsecond=message.nanos // 1000)


def time_to_pb(moment: datetime) -> Timestamp:
    """A moment as a Timestamp."""
    message = Timestamp()
    message.FromDatetime(moment.astimezone(UTC))
    return message


def count_from_pb(count: int, field: str) -> int:
    """A count or revision that canonical bytes can hold."""
    require(0 <= count < _COUNT_END, field, "must be 0 to 2^53 - 1")
    return count


def amount_from_pb(message: amount_pb2.Amount) -> Amount:
    """An amount, checked."""
    return amount_of(message.asset, message.minor_units, message.scale)


def amount_to_pb(amount: Amount) -> amount_pb2.Amount:
    """An amount as a message."""
    return amount_pb2.Amount(asset=amount.asset, minor_units=str(amount.minor_units), scale=amount.scale)


def header_from_pb(message: plan_pb2.PlanHeader) -> plan.PlanHeader:
    """A plan's head, with its form rules checked."""
    require(message.HasField("deadline"), "deadline", "must be present")
    require(message.HasField("policy"), "policy", "must be present")
    header = plan.PlanHeader(
        plan_id=ids.plan_id(message.plan_id),
        reference=message.reference,
        parties=tuple(
            plan.Party(ids.party_id(party.party_id, f"parties[{index}].party_id"), party.name, party.lei)
            for index, party in enumerate(message.parties)
        ),
        deadline=time_from_pb(message.deadline, "deadline"),
        policy=plan.Policy(message.policy.accept_expiry_risk, message.policy.unwind_automatically),
        sod_version=message.sod_version,
        leg_count=message.leg_count,
        legs_root=ids.digest(message.legs_root, "legs_root"),
    )
    plan.check_header(header)
    return header


def header_to_pb(header: plan.PlanHeader) -> plan_pb2.PlanHeader:
    """A plan's head as a message."""
    return plan_pb2.PlanHeader(
        plan_id=header.plan_id,
        reference=header.reference,
        parties=[plan_pb2.Party(party_id=party.party_id, name=party.name, lei=party.lei) for party in header.parties],
        deadline=time_to_pb(header.deadline),
        policy=plan_pb2.Policy(
            accept_expiry_risk=header.policy.accept_expiry_risk, unwind_automatically=header.policy.unwind_automatically
        ),
        sod_version=header.sod_version,
        leg_count=header.leg_count,
        legs_root=header.legs_root,
    )


def leg_from_pb(message: plan_pb2.Leg, header: plan.PlanHeader) -> plan.Leg:
    """A leg of the plan, with its form rules checked."""
    leg = plan.Leg(
        leg_id=ids.leg_id(message.leg_id),
        salt=message.salt,
        depends_on=tuple(ids.leg_id(each, f"depends_on[{index}]") for index, each in enumerate(message.depends_on)),
        terms=_terms_from_pb(message),
    )
    plan.check_leg(leg, header.parties)
    return leg


def _terms_from_pb(message: plan_pb2.Leg) -> plan.Terms:
    kind = message.WhichOneof("terms")
    try:
        match kind:
            case "token_transfer":
                return _token_transfer_from_pb(message.token_transfer)
            case "credit_transfer":
                return _credit_transfer_from_pb(message.credit_transfer)
            case "notarisation":
                return plan.Notarisation(message.notarisation.chain, message.notarisation.registry)
            case "journal":
                return plan.Journal()
            case _:
                raise FieldInvalid("terms", "must be one of the kinds of terms that this version knows")
    except FieldInvalid as finding:
        raise (finding.under(kind) if kind else finding) from None


def _token_transfer_from_pb(message: plan_pb2.TokenTransfer) -> plan.TokenTransfer:
    return plan.TokenTransfer(
        amount=_amount_under(message.amount),
        escrow=message.escrow,
        payer=message.payer,
        payee=message.payee,
        payer_party=ids.party_id(message.payer_party, "payer_party"),
        payee_party=ids.party_id(message.payee_party, "payee_party"),
    )


def _credit_transfer_from_pb(message: plan_pb2.CreditTransfer) -> plan.CreditTransfer:
    return plan.CreditTransfer(
        amount=_amount_under(message.amount),
        debtor=_account_from_pb(message.debtor, "debtor"),
        creditor=_account_from_pb(message.creditor, "creditor"),
        charge_bearer=enum_from_pb(BEARERS, message.charge_bearer, "charge_bearer"),
        remittance=message.remittance,
    )


def _amount_under(message: amount_pb2.Amount) -> Amount:
    try:
        return amount_from_pb(message)
    except FieldInvalid as finding:
        raise finding.under("amount") from None


def _account_from_pb(message: plan_pb2.BankAccount, field: str) -> plan.BankAccount:
    return plan.BankAccount(
        party_id=ids.party_id(message.party_id, f"{field}.party_id"),
        name=message.name,
        iban=message.iban,
        agent_bic=message.agent_bic,
    )


def leg_to_pb(leg: plan.Leg) -> plan_pb2.Leg:
    """A leg as a message."""
    message = plan_pb2.Leg(leg_id=leg.leg_id, salt=leg.salt, depends_on=leg.depends_on)
    match leg.terms:
        case plan.TokenTransfer() as token:
            message.token_transfer.CopyFrom(
                plan_pb2.TokenTransfer(
                    amount=amount_to_pb(token.amount),
                    escrow=token.escrow,
                    payer=token.payer,
                    payee=token.payee,
                    payer_party=token.payer_party,
                    payee_party=token.payee_party,
                )
            )
        case plan.CreditTransfer() as credit:
            message.credit_transfer.CopyFrom(
                plan_pb2.CreditTransfer(
                    amount=amount_to_pb(credit.amount),
                    debtor=_account_to_pb(credit.debtor),
                    creditor=_account_to_pb(credit.creditor),
                    charge_bearer=enum_to_pb(BEARERS, credit.charge_bearer),
                    remittance=credit.remittance,
                )
            )
        case plan.Notarisation() as notarisation:
            message.notarisation.CopyFrom(plan_pb2.Notarisation(chain=notarisation.chain, registry=notarisation.registry))
        case plan.Journal():
            message.journal.CopyFrom(plan_pb2.Journal())
    return message


def _account_to_pb(account: plan.BankAccount) -> plan_pb2.BankAccount:
    return plan_pb2.BankAccount(party_id=account.party_id, name=account.name, iban=account.iban, agent_bic=account.agent_bic)


def signature_from_pb(message: signature_pb2.Signature, field: str = "signature") -> Signature:
    """A signature, its form checked."""
    require(len(message.signature) == 64, f"{field}.signature", "must be 64 bytes")
    return Signature(ids.key_id(message.key_id, f"{field}.key_id"), message.signature)


def signature_to_pb(signature: Signature) -> signature_pb2.Signature:
    """A signature as a message."""
    return signature_pb2.Signature(key_id=signature.key_id, signature=signature.octets)


def gate_from_pb(message: signature_pb2.GateSignature) -> statements.GateSignature:
    """A person's signed statement, its form checked."""
    require(message.HasField("expire_time"), "expire_time", "must be present")
    statement = statements.GateStatement(
        gate=enum_from_pb(GATES, message.gate, "gate"),
        verdict=enum_from_pb(VERDICTS, message.verdict, "verdict"),
        plan_digest=ids.digest(message.plan_digest, "plan_digest"),
        nonce=message.nonce,
        expires_at=time_from_pb(message.expire_time, "expire_time"),
        votes_digest=ids.digest(message.votes_digest, "votes_digest") if message.votes_digest else None,
        evidence_digest=ids.digest(message.evidence_digest, "evidence_digest") if message.evidence_digest else None,
    )
    statement.check()
    return statements.GateSignature(statement, signature_from_pb(message.signature))


def gate_to_pb(signed: statements.GateSignature) -> signature_pb2.GateSignature:
    """A person's signed statement as a message."""
    statement = signed.statement
    return signature_pb2.GateSignature(
        gate=enum_to_pb(GATES, statement.gate),
        verdict=enum_to_pb(VERDICTS, statement.verdict),
        plan_digest=statement.plan_digest,
        nonce=statement.nonce,
        expire_time=time_to_pb(statement.expires_at),
        votes_digest=statement.votes_digest or b"",
        evidence_digest=statement.evidence_digest or b"",
        signature=signature_to_pb(signed.signature),
    )


def epoch_from_pb(message: outcome_pb2.Epoch) -> Epoch:
    """A fencing token."""
    require(message.generation >= 1 and message.counter >= 1, "epoch", "must have a generation and a counter of at least 1")
    return Epoch(message.generation, message.counter)


def epoch_to_pb(epoch: Epoch) -> outcome_pb2.Epoch:
    """A fencing token as a message."""
    return outcome_pb2.Epoch(generation=epoch.generation, counter=epoch.counter)


def evidence_from_pb(message: outcome_pb2.Evidence) -> statements.Evidence:
    """Evidence; which place it names is checked by whoever relies on it."""
    match message.WhichOneof("evidence"):
        case "chain":
            chain = message.chain
            return statements.ChainEvidence(
                chain=chain.chain,
                contract=chain.contract,
                entry_key=chain.entry_key,
                entry_status=chain.entry_status,
                transaction_hash=chain.transaction_hash,
                block_number=count_from_pb(chain.block_number, "evidence.chain.block_number"),
                block_hash=chain.block_hash,
            )
        case "bank":
            bank = message.bank
            return statements.BankEvidence(
                bank_bic=bank.bank_bic,
                uetr=bank.uetr,
                status=bank.status,
                message_id=bank.message_id,
                message_sha256=bank.message_sha256,
                booking_reference=bank.booking_reference,
                booking_sha256=bank.booking_sha256,
            )
        case "journal":
            journal = message.journal
            entry_count = count_from_pb(journal.entry_count, "evidence.journal.entry_count")
            return statements.JournalEvidence(entry_count, journal.head_hash, journal.sealed)
        case _:
            raise FieldInvalid("evidence", "must be of a kind that this version knows")


def evidence_to_pb(evidence: statements.Evidence) -> outcome_pb2.Evidence:
    """Evidence as a message."""
    match evidence:
        case statements.ChainEvidence():
            return outcome_pb2.Evidence(
                chain=outcome_pb2.ChainEvidence(
                    chain=evidence.chain,
                    contract=evidence.contract,
                    entry_key=evidence.entry_key,
                    entry_status=evidence.entry_status,
                    transaction_hash=evidence.transaction_hash,
                    block_number=evidence.block_number,
                    block_hash=evidence.block_hash,
                )
            )
        case statements.BankEvidence():
            return outcome_pb2.Evidence(
                bank=outcome_pb2.BankEvidence(
                    bank_bic=evidence.bank_bic,
                    uetr=evidence.uetr,
                    status=evidence.status,
                    message_id=evidence.message_id,
                    message_sha256=evidence.message_sha256,
                    booking_reference=evidence.booking_reference,
                    booking_sha256=evidence.booking_sha256,
                )
            )
        case statements.JournalEvidence():
            return outcome_pb2.Evidence(
                journal=outcome_pb2.JournalEvidence(
                    entry_count=evidence.entry_count, head_hash=evidence.head_hash, sealed=evidence.sealed
                )
            )


def refusal_from_pb(message: outcome_pb2.Refusal) -> statements.Refusal:
    """A definite refusal."""
    require(message.reason != "", "refusal.reason", "must be present")
    return statements.Refusal(message.reason, message.outside_code, message.detail)


def refusal_to_pb(refusal: statements.Refusal) -> outcome_pb2.Refusal:
    """A definite refusal as a message."""
    return outcome_pb2.Refusal(reason=refusal.reason, outside_code=refusal.outside_code, detail=refusal.detail)


def _promise_from_pb(message: outcome_pb2.Promise) -> statements.Promise:
    return statements.Promise(
        kind=enum_from_pb(PROMISES, message.kind, "promise.kind"),
        expires_at=time_from_pb(message.expire_time, "promise.expire_time") if message.HasField("expire_time") else None,
        evidence=evidence_from_pb(message.evidence) if message.HasField("evidence") else None,
    )


def vote_from_pb(message: outcome_pb2.SignedVote) -> statements.SignedVote:
    """A participant's vote, its form checked; the signature is checked against a registry."""
    answer: statements.Promise | statements.Refusal
    match message.WhichOneof("vote"):
        case "promise":
            answer = _promise_from_pb(message.promise)
        case "refusal":
            answer = refusal_from_pb(message.refusal)
        case _:
            raise FieldInvalid("vote", "must be a promise or a refusal")
    vote = statements.Vote(
        participant=message.participant,
        plan_id=ids.plan_id(message.plan_id),
        plan_digest=ids.digest(message.plan_digest, "plan_digest"),
        leg_id=ids.leg_id(message.leg_id),
        lock=ids.digest(message.lock, "lock"),
        answer=answer,
        voted_at=time_from_pb(message.vote_time, "vote_time"),
    )
    return statements.SignedVote(vote, signature_from_pb(message.signature))


def vote_to_pb(signed: statements.SignedVote) -> outcome_pb2.SignedVote:
    """A participant's vote as a message."""
    vote = signed.vote
    message = outcome_pb2.SignedVote(
        participant=vote.participant,
        plan_id=vote.plan_id,
        plan_digest=vote.plan_digest,
        leg_id=vote.leg_id,
        lock=vote.lock,
        vote_time=time_to_pb(vote.voted_at),
        signature=signature_to_pb(signed.signature),
    )
    if isinstance(vote.answer, statements.Refusal):
        message.refusal.CopyFrom(refusal_to_pb(vote.answer))
        return message
    message.promise.kind = enum_to_pb(PROMISES, vote.answer.kind)
    if vote.answer.expires_at is not None:
        message.promise.expire_time.CopyFrom(time_to_pb(vote.answer.expires_at))
    if vote.answer.evidence is not None:
        message.promise.evidence.CopyFrom(evidence_to_pb(vote.answer.evidence))
    return message


def outcome_from_pb(message: outcome_pb2.SignedOutcome) -> statements.SignedOutcome:
    """A participant's outcome, its form checked; the signature is checked against a registry."""
    outcome = statements.Outcome(
        participant=message.participant,
        plan_id=ids.plan_id(message.plan_id),
        plan_digest=ids.digest(message.plan_digest, "plan_digest"),
        leg_id=ids.leg_id(message.leg_id),
        kind=enum_from_pb(OUTCOMES, message.kind, "kind"),
        evidence=evidence_from_pb(message.evidence) if message.HasField("evidence") else None,
        refusal=refusal_from_pb(message.refusal) if message.HasField("refusal") else None,
        revision=count_from_pb(message.revision, "revision"),
        settled_at=time_from_pb(message.outcome_time, "outcome_time"),
    )
    return statements.SignedOutcome(outcome, signature_from_pb(message.signature))


def outcome_to_pb(signed: statements.SignedOutcome) -> outcome_pb2.SignedOutcome:
    """A participant's outcome as a message."""
    outcome = signed.outcome
    message = outcome_pb2.SignedOutcome(
        participant=outcome.participant,
        plan_id=outcome.plan_id,
        plan_digest=outcome.plan_digest,
        leg_id=outcome.leg_id,
        kind=enum_to_pb(OUTCOMES, outcome.kind),
        revision=outcome.revision,
        outcome_time=time_to_pb(outcome.settled_at),
        signature=signature_to_pb(signed.signature),
    )
    if outcome.evidence is not None:
        message.evidence.CopyFrom(evidence_to_pb(outcome.evidence))
    if outcome.refusal is not None:
        message.refusal.CopyFrom(refusal_to_pb(outcome.refusal))
    return message


def binding_from_pb(message: leg_pb2.LegBinding) -> Binding:
    """A leg bound to its plan, its form checked; whether it belongs there is `Binding.check`."""
    require(message.HasField("plan"), "plan", "must be present")
    require(message.HasField("leg"), "leg", "must be present")
    with within("plan"):
        header = header_from_pb(message.plan)
    with within("leg"):
        leg = leg_from_pb(message.leg, header)
    return Binding(
        header=header,
        leg=leg,
        index=message.leg_index,
        path=tuple(ids.digest(each, f"inclusion_path[{index}]") for index, each in enumerate(message.inclusion_path)),
        lock=ids.digest(message.lock, "lock"),
    )


def binding_to_pb(binding: Binding) -> leg_pb2.LegBinding:
    """A leg bound to its plan as a message."""
    return leg_pb2.LegBinding(
        plan=header_to_pb(binding.header),
        leg=leg_to_pb(binding.leg),
        leg_index=binding.index,
        inclusion_path=binding.path,
        lock=binding.lock,
    )


def certificate_from_pb(message: certificate_pb2.DecisionCertificate) -> Certificate:
    """A decision's certificate, its form checked; what it proves is `check_commit`."""
    for field in ("plan", "make", "approve", "release", "decide_time"):
        require(message.HasField(field), field, "must be present")
    with within("plan"):
        header = header_from_pb(message.plan)
    return Certificate(
        header=header,
        make=_gate_within(message.make, "make"),
        approve=_gate_within(message.approve, "approve"),
        release=_gate_within(message.release, "release"),
        votes=tuple(_vote_within(each, f"votes[{index}]") for index, each in enumerate(message.votes)),
        decision=enum_from_pb(DECISIONS, message.decision, "decision"),
        delegated_leg_id=message.delegated_leg_id,
        delegated_outcome=_outcome_within(message.delegated_outcome) if message.HasField("delegated_outcome") else None,
        decided_at=time_from_pb(message.decide_time, "decide_time"),
    )


def _gate_within(message: signature_pb2.GateSignature, prefix: str) -> statements.GateSignature:
    with within(prefix):
        return gate_from_pb(message)


def _vote_within(message: outcome_pb2.SignedVote, prefix: str) -> statements.SignedVote:
    with within(prefix):
        return vote_from_pb(message)


def _outcome_within(message: outcome_pb2.SignedOutcome) -> statements.SignedOutcome:
    with within("delegated_outcome"):
        return outcome_from_pb(message)


def certificate_to_pb(certificate: Certificate) -> certificate_pb2.DecisionCertificate:
    """A decision's certificate as a message."""
    message = certificate_pb2.DecisionCertificate(
        plan=header_to_pb(certificate.header),
        make=gate_to_pb(certificate.make),
        approve=gate_to_pb(certificate.approve),
        release=gate_to_pb(certificate.release),
        votes=[vote_to_pb(each) for each in certificate.votes],
        decision=enum_to_pb(DECISIONS, certificate.decision),
        delegated_leg_id=certificate.delegated_leg_id,
        decide_time=time_to_pb(certificate.decided_at),
    )
    if certificate.delegated_outcome is not None:
        message.delegated_outcome.CopyFrom(outcome_to_pb(certificate.delegated_outcome))
    return message


def authority_from_pb(message: certificate_pb2.AbortAuthority) -> AbortAuthority:
    """Why a leg may be released; what it proves is `check_abort`."""
    kind = message.WhichOneof("authority")
    if kind is None:
        raise FieldInvalid("authority", "must be present")
    with within(kind):
        match kind:
            case "no_vote":
                return vote_from_pb(message.no_vote)
            case "refused":
                return outcome_from_pb(message.refused)
            case "gate":
                return gate_from_pb(message.gate)
            case "deadline_passed":
                return DeadlinePassed()


def authority_to_pb(authority: AbortAuthority) -> certificate_pb2.AbortAuthority:
    """Why a leg may be released, as a message."""
    match authority:
        case statements.SignedVote():
            return certificate_pb2.AbortAuthority(no_vote=vote_to_pb(authority))
        case statements.SignedOutcome():
            return certificate_pb2.AbortAuthority(refused=outcome_to_pb(authority))
        case statements.GateSignature():
            return certificate_pb2.AbortAuthority(gate=gate_to_pb(authority))
        case DeadlinePassed():
            return certificate_pb2.AbortAuthority(deadline_passed=certificate_pb2.DeadlinePassed())
