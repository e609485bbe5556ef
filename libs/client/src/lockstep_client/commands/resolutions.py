"""What an operator signs, shown before it is signed and computed here, never taken over from the coordinator."""

from __future__ import annotations

import secrets
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from lockstep.coordinator.v1 import operator_service_pb2 as messages
from lockstep_client.commands.context import Refused
from lockstep_client.configuration import ClientConfiguration
from lockstep_client.convert import plan_from_pb
from lockstep_client.making import check_bound
from lockstep_client.operators import OperatorClient
from lockstep_kit.fields import require
from lockstep_kit.ids import DIGEST_BYTES, NONCE_BYTES, Digest
from lockstep_kit.resolutions import Resolution, ResolutionStatement, Verb
from lockstep_kit.statements import BankEvidence, ChainEvidence, Evidence, InstrumentEvidence
from lockstep_kit.strict_yaml import read
from lockstep_kit.values import dataclass


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for."""

    #: The escalation.
    escalation_id: str
    #: What is to be done.
    verb: Verb
    #: The leg, or "".
    leg_id: str
    #: Whether it took effect.
    executed: bool | None
    #: What shows it.
    evidence: Evidence | None
    #: Why.
    detail: str


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BankPart(_Part):
    """Evidence at the bank."""

    bank: str = Field(description="BIC of the bank")
    uetr: str = Field(description="UETR of the payment")
    status: str = Field(description="ISO 20022 status, such as ACSC or CNCL")
    booking_reference: str = Field(default="", description="the bank's reference of the booking")
    message_id: str = Field(default="", description="id of the message that says so")


class InstrumentPart(_Part):
    """Evidence of an undertaking."""

    bank: str = Field(description="BIC of the bank that issues it")
    reference: str = Field(description="the applicant's reference: the leg's UETR without hyphens")
    undertaking_number: str = Field(description="its number")
    status: str = Field(description="what the bank says, such as ISSU or APPL/WTHD")
    message_id: str = Field(default="", description="id of the message that says so")


class ChainPart(_Part):
    """Evidence on chain."""

    chain: str = Field(description="CAIP-2 id of the chain")
    contract: str = Field(description="EIP-55 address of the contract")
    entry_key: str = Field(description="key of the entry, 64 hex digits")
    entry_status: str = Field(description="status of the entry as the contract names it")
    transaction_hash: str = Field(default="", description="hash of the transaction, 64 hex digits")
    block_number: int = Field(ge=0, description="block in which it was read")
    block_hash: str = Field(description="hash of that block, 64 hex digits")


class EvidenceFile(_Part):
    """What shows what became of a leg: exactly one of the three."""

    bank: BankPart | None = Field(default=None, description="at the bank")
    chain: ChainPart | None = Field(default=None, description="on chain")
    instrument: InstrumentPart | None = Field(default=None, description="an undertaking at its bank")


def operators_of(configuration: ClientConfiguration) -> OperatorClient:
    """A client of the configured coordinator's operators' service. Call it inside a running event loop."""
    return OperatorClient(configuration.coordinator, configuration.tls)


def read_evidence(path: Path) -> Evidence:
    """The evidence that a file names.

    Raises:
        FieldInvalid: the file is not there, or breaks a rule.
    """
    return evidence_in(read(path, EvidenceFile), str(path))


def evidence_in(file: EvidenceFile, field: str) -> Evidence:
    """The evidence that a document names; `field` is what a refusal calls it.

    Raises:
        FieldInvalid: it breaks a rule.
    """
    given = [each for each in (file.bank, file.chain, file.instrument) if each is not None]
    require(len(given) == 1, field, "must hold exactly one of bank, chain and instrument")
    if file.instrument is not None:
        issued = file.instrument
        return InstrumentEvidence(issued.bank, issued.reference, issued.undertaking_number, issued.status, issued.message_id, b"")
    if file.bank is not None:
        told = file.bank
        return BankEvidence(told.bank, told.uetr, told.status, message_id=told.message_id, booking_reference=told.booking_reference)
    if file.chain is None:
        raise AssertionError("one of the three is there")
    told_chain = file.chain
    return ChainEvidence(
        told_chain.chain,
        told_chain.contract,
        _hash(told_chain.entry_key, "chain.entry_key"),
        told_chain.entry_status,
        _hash(told_chain.transaction_hash, "chain.transaction_hash") if told_chain.transaction_hash else b"",
        told_chain.block_number,
        _hash(told_chain.block_hash, "chain.block_hash"),
    )


def _hash(text: str, field: str) -> bytes:
    digits = text.removeprefix("0x")
    hexadecimal = len(digits) == 2 * DIGEST_BYTES and all(each in "0123456789abcdefABCDEF" for each in digits)
    require(hexadecimal, field, f"must be {2 * DIGEST_BYTES} hex digits")
    return bytes.fromhex(digits)


def check_shown(answer: messages.GetEscalationResponse, escalation_id: str) -> Digest:
    """Digest of the plan that the escalation is about, recomputed from the legs that are shown.

    Raises:
        FieldInvalid: the coordinator shows legs that are not the plan's.
        Refused: it shows another escalation than the one asked for, or another plan than the escalation names.
    """
    view = plan_from_pb(answer.plan)
    check_bound(view)
    shown = answer.escalation
    same = shown.escalation.escalation_id == escalation_id and shown.plan_digest == view.header.digest
    if not same:
        raise Refused("ESCALATION_DIFFERS", "the coordinator shows another escalation or plan; do not sign, call somebody")
    return view.header.digest


def resolution_statement(
    asked: Asked, plan_digest: Digest, expires_at: datetime, nonce: bytes | None = None
) -> ResolutionStatement:
    """What an operator signs; with a fresh nonce where none is given.

    Raises:
        FieldInvalid: a field is missing or one too many.
    """
    resolution = Resolution(
        plan_digest, asked.escalation_id, asked.verb, asked.leg_id, asked.executed, asked.evidence, asked.detail
    )
    statement = ResolutionStatement(resolution, nonce or secrets.token_bytes(NONCE_BYTES), expires_at)
    statement.check()
    return statement


def lines(statement: ResolutionStatement) -> list[str]:
    """For the person who signs."""
    told = statement.resolution
    shown = [f"you sign   {told.verb} {told.leg_id}".rstrip(), f"about      escalation {told.escalation_id}"]
    shown.append(f"digest     {told.plan_digest.hex()}")
    if told.executed is not None:
        shown.append(f"the leg    {'took effect' if told.executed else 'took no effect'}, shown by {told.evidence}")
    shown.append(f"because    {told.detail}")
    shown.append(f"good until {statement.expires_at.isoformat()}")
    return shown
