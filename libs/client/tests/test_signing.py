"""What people sign, held against what others recompute from it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from eth_account import Account
from eth_keys.datatypes import Signature

from lockstep_client.signing import escrow_terms, gate_signature, payer_signature
from lockstep_contracts.escrow import leg_id_hash, leg_signing_hash
from lockstep_kit.amounts import Amount
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import sha256
from lockstep_kit.plan import Leg, PlanHeader, Policy, TokenTransfer
from lockstep_kit.signing import SigningKey
from lockstep_kit.statements import Gate, Verdict

ESCROW = "0x8617E340B3D01FA5F11F306F4090FD50E238070D"
TOKEN = "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB"
PAYEE = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
#: A key that is fixed so that the signature is; RFC 6979 draws no nonce.
PAYER = Account.from_key(sha256(b"payer"))
LOCK = sha256(b"lock")
GOLDEN_DIGEST = "8413af9e6b50efa0b83ad889e36fad376a751a3c67e4d7074adce937922755f2"
GOLDEN_HASH = "ec51f334cf4a974b47a70122b29192da718bcb6b7a8be6220db472eede36ed59"
GOLDEN_SIGNATURE = (
    "2b99fb4672270e87984d0e0a38e2c0f636aa1915d91b25cf55e4c4cec94d1b9c"
    "531f9d6a8d8fc5d17dce9c0b01555a53396e8a2b3389e288e10e7c63a278303d1c"
)


def made() -> tuple[PlanHeader, Leg]:
    asset = f"eip155:138/erc20:{TOKEN}"
    terms = TokenTransfer(Amount(asset, 10_000, 2), ESCROW, PAYER.address, PAYEE, "seller", "buyer")  # type: ignore[arg-type]
    deadline = datetime(2026, 6, 1, 12, 0, 0, 999_999, tzinfo=UTC)
    header = PlanHeader("0b0f3c70-6d1e-4c9a-9a30-5a5f4a1f0c11", "", (), deadline, Policy(), 1, 1, sha256(b"root"))  # type: ignore[arg-type]
    return header, Leg("delivery", bytes(16), (), terms)  # type: ignore[arg-type]


def test_a_payer_signs_what_the_escrow_checks() -> None:
    """The signature over the wallet's document recovers to the payer from the very hash that the contract computes."""
    header, leg = made()
    octets = payer_signature(header, leg, LOCK, PAYER)
    assert len(octets) == 65
    digest = leg_signing_hash(138, ESCROW, escrow_terms(header, leg, LOCK))
    recovered = Signature(vrs=(octets[64] - 27, int.from_bytes(octets[:32], "big"), int.from_bytes(octets[32:64], "big")))
    assert recovered.recover_public_key_from_msg_hash(digest).to_checksum_address() == PAYER.address


def test_the_payers_signature_is_golden() -> None:
    """Terms, hash and signature are those that were written down: a change of them would void every signature in flight."""
    header, leg = made()
    terms = escrow_terms(header, leg, LOCK)
    assert terms.prepare_by == int(datetime(2026, 6, 1, 12, 0, tzinfo=UTC).timestamp())
    assert terms.leg_id_hash == leg_id_hash("delivery")
    assert header.digest.hex() == GOLDEN_DIGEST
    assert leg_signing_hash(138, ESCROW, terms).hex() == GOLDEN_HASH
    assert payer_signature(header, leg, LOCK, PAYER).hex() == GOLDEN_SIGNATURE


def test_every_part_is_signed(world: Any) -> None:
    """Another lock, amount or plan gives another hash."""
    header, leg = made()
    terms = escrow_terms(header, leg, LOCK)
    assert leg_signing_hash(138, ESCROW, terms) != leg_signing_hash(138, ESCROW, escrow_terms(header, leg, sha256(b"other")))
    assert leg_signing_hash(138, ESCROW, terms) != leg_signing_hash(138, ESCROW, escrow_terms(world.draft.header, leg, LOCK))
    assert leg_signing_hash(138, ESCROW, terms) != leg_signing_hash(1, ESCROW, terms)


def test_only_token_transfers_have_payers(world: Any) -> None:
    """A leg of another kind is no token transfer."""
    with pytest.raises(TypeError, match="is no token transfer"):
        escrow_terms(world.draft.header, world.leg("payment"), LOCK)


@pytest.mark.parametrize(
    ("gate", "given", "field"),
    [
        (Gate.RELEASE, {}, "votes_digest"),
        (Gate.VALIDATE, {}, "evidence_digest"),
        (Gate.APPROVE, {"votes_digest": LOCK}, "votes_digest"),
        (Gate.RELEASE, {"votes_digest": LOCK, "evidence_digest": LOCK}, "evidence_digest"),
    ],
)
def test_a_gate_is_signed_over_what_it_is_about(gate: Gate, given: dict[str, Any], field: str) -> None:
    """A gate's statement has exactly the digests that the gate is about."""
    key, until = SigningKey(bytes(32)), datetime(2026, 6, 1, tzinfo=UTC)
    with pytest.raises(FieldInvalid) as refused:
        gate_signature(key, gate, LOCK, nonce=b"n" * 16, expires_at=until, **given)
    assert refused.value.field == field


def test_a_refusal_needs_no_digest() -> None:
    """A gate may be refused before there is anything to sign over."""
    key, until = SigningKey(bytes(32)), datetime(2026, 6, 1, tzinfo=UTC)
    signed = gate_signature(key, Gate.RELEASE, LOCK, nonce=b"n" * 16, expires_at=until, verdict=Verdict.REJECT)
    assert key.public.verifies(signed.statement.signed_bytes(), signed.signature.octets)
