"""What people sign: gates with Ed25519, token transfers and permits with EIP-712. Pure, but for what a payer signs, which takes an unlocked account.

The libraries of the chain are imported where they are used: who signs a gate does not wait for them.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from lockstep_kit.amounts import erc20_asset
from lockstep_kit.ids import Digest
from lockstep_kit.permits import Permit
from lockstep_kit.plan import Leg, PlanHeader, TokenTransfer
from lockstep_kit.signing import Signer
from lockstep_kit.statements import Gate, GateSignature, GateStatement, Verdict, sign_gate

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

    from lockstep_contracts import escrow


def gate_signature(
    key: Signer,
    gate: Gate,
    plan_digest: Digest,
    *,
    nonce: bytes,
    expires_at: datetime,
    verdict: Verdict = Verdict.APPROVE,
    votes_digest: Digest | None = None,
    evidence_digest: Digest | None = None,
) -> GateSignature:
    """A person's signature for a gate.

    Raises:
        FieldInvalid: the statement lacks a field or has one too many.
    """
    statement = GateStatement(gate, verdict, plan_digest, nonce, expires_at, votes_digest, evidence_digest)
    statement.check()
    return sign_gate(statement, key)


def escrow_terms(header: PlanHeader, leg: Leg, lock: Digest) -> escrow.LegTerms:
    """The terms of a token transfer that its payer signs.

    Raises:
        TypeError: the leg is no token transfer.
    """
    from lockstep_contracts import escrow

    if not isinstance(leg.terms, TokenTransfer):
        raise TypeError(f"leg {leg.leg_id} is no token transfer")
    return escrow.LegTerms(
        plan_digest=header.digest,
        leg_id_hash=escrow.leg_id_hash(leg.leg_id),
        token=erc20_asset(leg.terms.amount.asset).token,
        payer=leg.terms.payer,
        payee=leg.terms.payee,
        amount=leg.terms.amount.minor_units,
        lock=lock,
        prepare_by=int(header.deadline.timestamp()),
    )


def payer_signature(header: PlanHeader, leg: Leg, lock: Digest, account: LocalAccount) -> bytes:
    """The payer's EIP-712 signature over terms and lock (65 bytes)."""
    from eth_account.messages import encode_typed_data

    from lockstep_contracts import escrow

    terms = escrow_terms(header, leg, lock)
    if not isinstance(leg.terms, TokenTransfer):
        raise TypeError(f"leg {leg.leg_id} is no token transfer")
    chain = int(erc20_asset(leg.terms.amount.asset).chain.removeprefix("eip155:"))
    document = escrow.leg_typed_data(chain, leg.terms.escrow, terms)
    return bytes(account.sign_message(encode_typed_data(full_message=document)).signature)


def payer_permit(
    domain_separator: bytes, nonce: int, *, escrow: str, value: int, deadline: datetime, account: LocalAccount
) -> Permit:
    """The payer's allowance for the escrow (EIP-2612), under the domain and with the nonce that the token tells."""
    from eth_typing import Hash32

    from lockstep_contracts.token import PermitTerms, permit_signing_hash

    deadline = deadline.replace(microsecond=0)
    terms = PermitTerms(account.address, escrow, value, nonce, int(deadline.timestamp()))
    digest = Hash32(permit_signing_hash(domain_separator, terms))
    return Permit(value, deadline, bytes(account.unsafe_sign_hash(digest).signature))
