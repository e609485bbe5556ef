"""Plans: their head and their legs."""

from __future__ import annotations

from typing import Final

from lockstep.type.v1 import amount_pb2, plan_pb2
from lockstep_kit import ids, plan
from lockstep_kit.amounts import Amount
from lockstep_kit.convert.instruments import instrument_from_pb, instrument_to_pb
from lockstep_kit.convert.values import (
    amount_from_pb,
    amount_to_pb,
    enum_from_pb,
    enum_to_pb,
    remembered,
    time_from_pb,
    time_to_pb,
)
from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.instruments import IssueInstrument
from lockstep_kit.keeping import kept

ANCHORINGS: Final = {
    plan_pb2.ANCHORING_BATCHED: plan.Anchoring.BATCHED,
    plan_pb2.ANCHORING_DEFERRED: plan.Anchoring.DEFERRED,
}
BEARERS: Final = {
    plan_pb2.CHARGE_BEARER_DEBTOR: plan.ChargeBearer.DEBTOR,
    plan_pb2.CHARGE_BEARER_SHARED: plan.ChargeBearer.SHARED,
    plan_pb2.CHARGE_BEARER_SERVICE_LEVEL: plan.ChargeBearer.SERVICE_LEVEL,
}


@remembered(1_024)
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
    return plan_pb2.PlanHeader.FromString(header_octets(header))


@kept
def header_octets(header: plan.PlanHeader) -> bytes:
    """A plan's head as the bytes of a message."""
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
    ).SerializeToString(deterministic=True)


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
            case "issue_instrument":
                return instrument_from_pb(message.issue_instrument)
            case "notarisation":
                return _notarisation_from_pb(message.notarisation)
            case "journal":
                return plan.Journal()
            case _:
                raise FieldInvalid("terms", "must be one of the kinds of terms that this version knows")
    except FieldInvalid as finding:
        raise (finding.under(kind) if kind else finding) from None


def _notarisation_from_pb(message: plan_pb2.Notarisation) -> plan.Notarisation:
    anchoring = enum_from_pb(ANCHORINGS, message.anchoring, "anchoring") if message.anchoring else None
    return plan.Notarisation(message.chain, message.registry, anchoring)


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
        institution_bic=message.institution_bic,
    )


def leg_to_pb(leg: plan.Leg) -> plan_pb2.Leg:
    """A leg as a message."""
    return plan_pb2.Leg.FromString(leg_octets(leg))


@kept
def leg_octets(leg: plan.Leg) -> bytes:
    """A leg as the bytes of a message."""
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
        case IssueInstrument() as instrument:
            message.issue_instrument.CopyFrom(instrument_to_pb(instrument))
        case plan.Notarisation() as notarisation:
            message.notarisation.CopyFrom(plan_pb2.Notarisation(chain=notarisation.chain, registry=notarisation.registry))
            if notarisation.anchoring is not None:
                message.notarisation.anchoring = enum_to_pb(ANCHORINGS, notarisation.anchoring)
        case plan.Journal():
            message.journal.CopyFrom(plan_pb2.Journal())
    return message.SerializeToString(deterministic=True)


def _account_to_pb(account: plan.BankAccount) -> plan_pb2.BankAccount:
    return plan_pb2.BankAccount(
        party_id=account.party_id,
        name=account.name,
        iban=account.iban,
        agent_bic=account.agent_bic,
        institution_bic=account.institution_bic,
    )
