"""Token legs: what the validator's own node says, compared with what the leg was to do. Pure."""

from __future__ import annotations

from lockstep_client.convert import LegView
from lockstep_client.evidence import Finding, Findings
from lockstep_client.signing import escrow_terms
from lockstep_contracts.escrow import LegStatus, leg_key, terms_hash
from lockstep_contracts.events import Committed
from lockstep_kit.amounts import erc20_asset
from lockstep_kit.plan import PlanHeader, TokenTransfer
from lockstep_kit.statements import ChainEvidence
from lockstep_kit.values import dataclass

#: The escrow keeps this much of a leg's terms.
TERMS_BYTES = 31


@dataclass(frozen=True, slots=True)
class LoggedCommit:
    """A Committed event, where it was found."""

    #: Contract that emitted it, EIP-55.
    contract: str
    #: The event.
    event: Committed
    #: Transaction (32 bytes).
    transaction_hash: bytes
    #: Block.
    block_number: int
    #: Its hash, as the transaction's receipt or the log names it.
    block_hash: bytes
    #: Hash of the canonical block of that number; b"" where there is none.
    canonical_hash: bytes


@dataclass(frozen=True, slots=True)
class ChainFacts:
    """What a node says about a leg."""

    #: CAIP-2 id of the node's chain.
    chain: str
    #: Status of the leg on its escrow, now.
    status: LegStatus
    #: First 31 bytes of the hash of the terms that the escrow keeps.
    terms_digest: bytes
    #: Hash of the canonical block with the evidence's number; b"" where there is none yet.
    evidence_block_hash: bytes
    #: Committed events of the leg: of the evidence's transaction if it names one, else of the escrow's whole log.
    commits: tuple[LoggedCommit, ...]
    #: Whether the evidence's transaction is known and succeeded; None where the evidence names none.
    transaction_succeeded: bool | None


def check_chain_leg(view: LegView, header: PlanHeader, facts: ChainFacts) -> list[Finding]:
    """The escrow paid this leg's amount of this token to this payee, under this leg's terms and lock, in a canonical block."""
    found = Findings(view.leg.leg_id)
    terms = view.leg.terms
    evidence = view.evidence
    if not isinstance(terms, TokenTransfer) or not isinstance(evidence, ChainEvidence):
        found.note("CHAIN_EVIDENCE_MISSING", "a token transfer is shown by an entry on chain, and there is none")
        return found
    asset = erc20_asset(terms.amount.asset)
    key = leg_key(header.digest, view.leg.leg_id)
    found.expect(facts.chain == asset.chain, "CHAIN_OTHER", f"the validator's node is on {facts.chain}, the token on {asset.chain}")
    found.expect(evidence.chain == asset.chain, "CHAIN_EVIDENCE_CHAIN", "the evidence is about another chain")
    found.expect(
        evidence.contract == terms.escrow,
        "CHAIN_EVIDENCE_CONTRACT",
        "the evidence is about another contract than the plan's escrow",
    )
    found.expect(evidence.entry_key == key, "CHAIN_EVIDENCE_KEY", "the evidence is about another leg's entry")
    found.expect(
        facts.status is LegStatus.COMMITTED,
        "CHAIN_NOT_COMMITTED",
        f"the escrow says {facts.status.name}",
        may_pass=facts.status is LegStatus.PREPARED,
    )
    same = facts.terms_digest == terms_hash(escrow_terms(header, view.leg, view.lock))[:TERMS_BYTES]
    found.expect(same, "CHAIN_TERMS_DIFFER", "the escrow kept other terms or another lock than the plan's")
    found.expect(
        facts.evidence_block_hash == evidence.block_hash,
        "CHAIN_BLOCK_NOT_CANONICAL",
        f"block {evidence.block_number} of the validator's node is another one, or not there yet",
        may_pass=not facts.evidence_block_hash,
    )
    if facts.transaction_succeeded is not None:
        found.expect(
            facts.transaction_succeeded, "CHAIN_TRANSACTION_FAILED", "the transaction is not known, or was reverted", may_pass=True
        )
    _check_commit(terms, key, asset.token, evidence, facts, found)
    return found


def _check_commit(
    terms: TokenTransfer, key: bytes, token: str, evidence: ChainEvidence, facts: ChainFacts, found: Findings
) -> None:
    """Exactly one Committed event of the leg, by the escrow, with the very token, payee and amount, in a canonical block."""
    own = [each for each in facts.commits if each.contract == terms.escrow and each.event.leg_key == key]
    if not found.expect(
        len(own) == 1, "CHAIN_EVENT_MISSING", f"the escrow logged {len(own)} payouts of the leg, not one", may_pass=not own
    ):
        return
    logged = own[0]
    found.expect(logged.event.token == token, "CHAIN_TOKEN_DIFFERS", f"the escrow paid the token {logged.event.token}")
    found.expect(logged.event.payee == terms.payee, "CHAIN_PAYEE_DIFFERS", f"the escrow paid {logged.event.payee}")
    found.expect(
        logged.event.amount == terms.amount.minor_units,
        "CHAIN_AMOUNT_DIFFERS",
        f"the escrow paid {logged.event.amount} minor units, not {terms.amount.minor_units}",
    )
    found.expect(
        bool(logged.canonical_hash) and logged.block_hash == logged.canonical_hash,
        "CHAIN_EVENT_NOT_CANONICAL",
        f"block {logged.block_number}, which holds the payout, is not canonical",
        may_pass=True,
    )
    found.expect(
        logged.block_number <= evidence.block_number,
        "CHAIN_EVENT_LATE",
        "the payout stands in a later block than the evidence names",
    )
