"""Token legs as entries of the escrow contract: their terms, their calls, and what each status means in each phase. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from dlt_gateway.preconditions import EscrowPreconditions
from lockstep_chain.book import Call, Skip, skipped
from lockstep_chain.judging import Rules, Unmoved
from lockstep_chain.ports import Log
from lockstep_contracts import escrow, gas
from lockstep_kit.amounts import AssetId, erc20_asset
from lockstep_kit.certificate import Binding
from lockstep_kit.fence import Finding, Phase
from lockstep_kit.participant.ports import AssetCapability, Capabilities, LegWork
from lockstep_kit.plan import TokenTransfer
from lockstep_kit.statements import PromiseKind, Refusal
from lockstep_kit.values import dataclass

RULES: Final = Rules(
    table={
        (Phase.PREPARING, "None"): Unmoved.REFUSES,
        (Phase.PREPARING, "Prepared"): Finding.VOTED_YES,
        # A tombstone came first: whatever is sent now, the leg can never execute.
        (Phase.PREPARING, "Aborted"): Finding.VOTED_NO,
        # Only what was promised is executed: this gateway's database was put back to before it was.
        (Phase.PREPARING, "Committed"): Finding.VOTED_YES,
        (Phase.PREPARING, "Reversed"): Unmoved.STUCK,
        (Phase.COMMITTING, "None"): Unmoved.STUCK,
        (Phase.COMMITTING, "Prepared"): Unmoved.AGAIN,
        (Phase.COMMITTING, "Committed"): Finding.EXECUTED,
        # An arbiter ended the hold in the payer's favour.
        (Phase.COMMITTING, "Aborted"): Finding.REFUSED,
        (Phase.COMMITTING, "Reversed"): Unmoved.STUCK,
        (Phase.ABORTING, "None"): Unmoved.AGAIN,
        (Phase.ABORTING, "Prepared"): Unmoved.AGAIN,
        (Phase.ABORTING, "Committed"): Finding.EXECUTED,
        (Phase.ABORTING, "Aborted"): Finding.RELEASED,
        (Phase.ABORTING, "Reversed"): Unmoved.STUCK,
        (Phase.REVERSING, "None"): Unmoved.STUCK,
        (Phase.REVERSING, "Prepared"): Unmoved.STUCK,
        # The token lets nobody take it back, or the payee has it no more.
        (Phase.REVERSING, "Committed"): Unmoved.REFUSES,
        (Phase.REVERSING, "Aborted"): Unmoved.STUCK,
        (Phase.REVERSING, "Reversed"): Finding.REVERSED,
    },
    reasons={
        Phase.PREPARING: "DLT_PREPARE_FAILED",
        Phase.COMMITTING: "DLT_COMMIT_FAILED",
        Phase.REVERSING: "DLT_REVERSE_FAILED",
    },
    # A dear neighbour in the batch left too little gas: the leg itself was not looked at.
    passing=frozenset({"GasTooLow"}),
)

#: Bytes of a signature that `gas.prepare_gas` accounts for: a key's own. A contract wallet may ask for more.
_SIGNATURE_BYTES: Final = 65
#: Most gas that a byte of calldata can cost (EIP-7623).
_CALLDATA_BYTE_GAS: Final = 40

_STATUS_NAMES: Final = {
    escrow.LegStatus.NONE: "None",
    escrow.LegStatus.PREPARED: "Prepared",
    escrow.LegStatus.COMMITTED: "Committed",
    escrow.LegStatus.ABORTED: "Aborted",
    escrow.LegStatus.REVERSED: "Reversed",
}


#: Legs whose terms are remembered; each is some hundred bytes.
_REMEMBERED_MAX: Final = 4_096


@dataclass(frozen=True, slots=True)
class EscrowBook:
    """The escrow contract, as the gateway uses it."""

    #: CAIP-2 id of its chain.
    chain: str
    #: EIP-55 address.
    contract: str
    #: Tokens that are served: CAIP-19 id -> decimal places.
    tokens: Mapping[str, int]
    #: Those of them that the escrow controls, so that what was paid can be taken back.
    reversible: frozenset[str] = frozenset()
    #: More would use more gas than a transaction may (EIP-7825).
    batch_max: int = min(gas.PREPARE_LEGS_MAX, gas.PAY_OUT_LEGS_MAX)
    #: How entries are judged.
    rules: Rules = RULES

    @property
    def preconditions(self) -> EscrowPreconditions:
        """What is proven before a leg is sent and promised."""
        return EscrowPreconditions(self)

    def terms(self, work: LegWork) -> escrow.LegTerms:
        """What the payer signed."""
        return leg_terms(work.binding)

    def permit(self, work: LegWork) -> escrow.Permit | None:
        """The payer's allowance as the contract takes it."""
        permit = work.permit
        return None if permit is None else escrow.Permit(permit.value, int(permit.deadline.timestamp()), permit.signature)

    def capabilities(self) -> Capabilities:
        """Guaranteed promises that do not lapse: a prepared hold never expires."""
        return Capabilities(
            leg_kinds=("token_transfer",),
            promise_kind=PromiseKind.GUARANTEED,
            promise_max=None,
            assets=tuple(AssetCapability(asset, scale, asset in self.reversible) for asset, scale in sorted(self.tokens.items())),
            venues=(self.contract,),
        )

    def entry_key(self, work: LegWork) -> bytes:
        """The leg's name on the contract."""
        return escrow.leg_key(work.binding.header.digest, work.leg_id)

    def refuses(self, work: LegWork) -> Refusal | None:
        """Another escrow, an unknown token, or another scale; to reverse, a token that the escrow does not control."""
        terms = token_terms(work.binding)
        if work.phase is Phase.REVERSING:
            uncontrolled = Refusal("REVERSAL_UNSUPPORTED", "", f"the escrow does not control {terms.amount.asset}")
            return None if terms.amount.asset in self.reversible else uncontrolled
        if terms.escrow != self.contract:
            return Refusal("DLT_PREPARE_FAILED", "ESCROW_UNKNOWN", f"this gateway works with the escrow {self.contract}")
        if terms.amount.asset not in self.tokens:
            return Refusal("DLT_PREPARE_FAILED", "TOKEN_UNKNOWN", f"this gateway does not serve {terms.amount.asset}")
        if self.tokens[terms.amount.asset] != terms.amount.scale:
            return Refusal("DLT_PREPARE_FAILED", "SCALE_WRONG", f"the token has {self.tokens[terms.amount.asset]} decimals")
        return None

    def foreign(self, work: LegWork) -> bool:
        """Another escrow, or a token of another chain."""
        terms = token_terms(work.binding)
        return terms.escrow != self.contract or not terms.amount.asset.startswith(f"{self.chain}/erc20:")

    def has_entry(self, work: LegWork) -> bool:
        """Every hold is one."""
        del work
        return True

    def call(self, phase: Phase, batch: Sequence[LegWork]) -> Call:
        """One call for a batch; each of its legs stands or falls by itself."""
        terms = [self.terms(work) for work in batch]
        match phase:
            case Phase.PREPARING:
                signatures, permits = [work.payer_signature for work in batch], [self.permit(work) for work in batch]
                beyond = sum(max(0, len(signature) - _SIGNATURE_BYTES) for signature in signatures)
                gas_limit = gas.prepare_gas(len(batch), sum(permit is not None for permit in permits))
                return Call(escrow.encode_try_prepare_many(terms, signatures, permits), gas_limit + beyond * _CALLDATA_BYTE_GAS)
            case Phase.COMMITTING:
                return Call(escrow.encode_try_commit_many(terms, [work.key for work in batch]), gas.pay_out_gas(len(batch)))
            case Phase.ABORTING:
                return Call(escrow.encode_try_abort_many(terms), gas.pay_out_gas(len(batch)))
            case Phase.REVERSING:
                return Call(escrow.encode_try_reverse_many(terms), gas.reverse_gas(len(batch)))
            case _:
                raise AssertionError(f"no call belongs to {phase}")

    def status_query(self, keys: Sequence[bytes]) -> bytes:
        """Calldata of statusOfMany."""
        return escrow.encode_status_of_many(keys)

    def statuses(self, result: bytes) -> tuple[str, ...]:
        """Statuses by the contract's own names."""
        return tuple(_STATUS_NAMES[status] for status in escrow.decode_status_of_many(result))

    def skips(self, logs: Sequence[Log]) -> tuple[Skip, ...]:
        """The contract's Skipped events."""
        return skipped(self.contract, logs)


def token_terms(binding: Binding) -> TokenTransfer:
    """Terms of a leg that this gateway serves."""
    terms = binding.leg.terms
    if not isinstance(terms, TokenTransfer):
        raise AssertionError("the engine hands over legs of the declared kinds only")
    return terms


def leg_terms(binding: Binding) -> escrow.LegTerms:
    """What the payer signed. The last second in which it may be prepared is the plan's deadline, rounded down."""
    terms = token_terms(binding)
    deadline = int(binding.header.deadline.timestamp())
    asset, minor_units = terms.amount.asset, terms.amount.minor_units
    return _leg_terms(
        binding.header.digest, binding.leg.leg_id, asset, terms.payer, terms.payee, minor_units, binding.lock, deadline
    )


@lru_cache(_REMEMBERED_MAX)
def _leg_terms(
    plan_digest: bytes, leg_id: str, asset: AssetId, payer: str, payee: str, amount: int, lock: bytes, prepare_by: int
) -> escrow.LegTerms:
    """The same; a leg is asked about and carried several times, and its addresses are checked once."""
    return escrow.LegTerms(
        plan_digest, escrow.leg_id_hash(leg_id), erc20_asset(asset).token, payer, payee, amount, lock, prepare_by
    )
