"""Plans as entries of the NotaryRegistry: their calls, and what each status means in each phase. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lockstep_chain.book import Call, Skip, skipped
from lockstep_chain.judging import Rules, Unmoved
from lockstep_chain.ports import Log
from lockstep_contracts import gas
from lockstep_contracts import notary as registry
from lockstep_kit.fence import Finding, Phase
from lockstep_kit.participant.ports import Capabilities, LegWork, PlanOutcome
from lockstep_kit.plan import Anchoring, Notarisation
from lockstep_kit.statements import PromiseKind, Refusal
from lockstep_kit.values import dataclass

RULES: Final = Rules(
    table={
        (Phase.PREPARING, "None"): Unmoved.AGAIN,
        (Phase.PREPARING, "Registered"): Finding.VOTED_YES,
        (Phase.PREPARING, "Committed"): Finding.VOTED_NO,
        (Phase.PREPARING, "Aborted"): Finding.VOTED_NO,
        (Phase.PREPARING, "Mixed"): Finding.VOTED_NO,
        (Phase.COMMITTING, "None"): Unmoved.STUCK,
        (Phase.COMMITTING, "Registered"): Unmoved.AGAIN,
        (Phase.COMMITTING, "Committed"): Finding.EXECUTED,
        (Phase.COMMITTING, "Aborted"): Finding.REFUSED,
        (Phase.COMMITTING, "Mixed"): Finding.EXECUTED,
        (Phase.ABORTING, "None"): Unmoved.AGAIN,
        (Phase.ABORTING, "Registered"): Unmoved.AGAIN,
        (Phase.ABORTING, "Committed"): Unmoved.STUCK,
        (Phase.ABORTING, "Aborted"): Finding.RELEASED,
        (Phase.ABORTING, "Mixed"): Finding.RELEASED,
    },
    reasons={Phase.PREPARING: "NOTARY_PREPARE_FAILED", Phase.COMMITTING: "NOTARY_COMMIT_FAILED"},
)

_STATUS_NAMES: Final = {
    registry.PlanStatus.NONE: "None",
    registry.PlanStatus.REGISTERED: "Registered",
    registry.PlanStatus.COMMITTED: "Committed",
    registry.PlanStatus.ABORTED: "Aborted",
    registry.PlanStatus.MIXED: "Mixed",
}

#: A plan whose executed legs were reversed moved nothing in the end: the registry knows it as aborted.
_OUTCOMES: Final = {
    PlanOutcome.COMMITTED: registry.PlanStatus.COMMITTED,
    PlanOutcome.ABORTED: registry.PlanStatus.ABORTED,
    PlanOutcome.REVERSED: registry.PlanStatus.ABORTED,
    PlanOutcome.MIXED: registry.PlanStatus.MIXED,
}


@dataclass(frozen=True, slots=True)
class RegistryBook:
    """The NotaryRegistry contract, as the notary uses it."""

    #: CAIP-2 id of its chain.
    chain: str
    #: EIP-55 address.
    contract: str
    #: Ways of anchoring in batches that are promised; legs that were promised before are served all the same.
    anchorings: tuple[Anchoring, ...] = ()
    #: More would use more gas than a transaction may (EIP-7825).
    batch_max: int = min(gas.REGISTER_PLANS_MAX, gas.FINALISE_PLANS_MAX)
    #: How entries are judged.
    rules: Rules = RULES

    @property
    def preconditions(self) -> None:
        """A registration needs nothing but the registry."""
        return

    def capabilities(self) -> Capabilities:
        """An entry never goes away."""
        return Capabilities(
            leg_kinds=("notarisation",),
            promise_kind=PromiseKind.GUARANTEED,
            promise_max=None,
            venues=(self.contract,),
            anchorings=self.anchorings,
        )

    def entry_key(self, work: LegWork) -> bytes:
        """The plan's digest."""
        return work.binding.header.digest

    def refuses(self, work: LegWork) -> Refusal | None:
        """Another chain or another registry, or a way of anchoring that is not served."""
        if self.foreign(work):
            return Refusal("NOTARY_PREPARE_FAILED", "REGISTRY_UNKNOWN", f"this notary writes to {self.contract} on {self.chain}")
        anchoring = _terms(work).anchoring
        if anchoring is not None and anchoring not in self.anchorings:
            served = ", ".join(self.anchorings) or "none"
            detail = f"notarisation.anchoring is {anchoring}, and this notary serves {served}"
            return Refusal("NOTARY_PREPARE_FAILED", "ANCHORING_UNSERVED", detail)
        return None

    def foreign(self, work: LegWork) -> bool:
        """Another chain or another registry."""
        terms = _terms(work)
        return (terms.chain, terms.registry) != (self.chain, self.contract)

    def has_entry(self, work: LegWork) -> bool:
        """A plan in batches has none."""
        return self.foreign(work) or _terms(work).anchoring is None

    def call(self, phase: Phase, batch: Sequence[LegWork]) -> Call:
        """One call for a batch of plans."""
        match phase:
            case Phase.PREPARING:
                digests = [work.binding.header.digest for work in batch]
                return Call(registry.encode_register_many(digests), gas.register_gas(len(batch)))
            case Phase.COMMITTING | Phase.ABORTING:
                finalisations = [finalisation(work) for work in batch]
                return Call(registry.encode_finalise_many(finalisations), gas.finalise_gas(len(batch)))
            case _:
                raise AssertionError(f"no call belongs to {phase}")

    def status_query(self, keys: Sequence[bytes]) -> bytes:
        """Calldata of statusOfMany."""
        return registry.encode_plan_status_of_many(keys)

    def statuses(self, result: bytes) -> tuple[str, ...]:
        """Statuses by the contract's own names."""
        return tuple(_STATUS_NAMES[status] for status in registry.decode_plan_status_of_many(result))

    def skips(self, logs: Sequence[Log]) -> tuple[Skip, ...]:
        """The contract's Skipped events."""
        return skipped(self.contract, logs)


def _terms(work: LegWork) -> Notarisation:
    terms = work.binding.leg.terms
    if not isinstance(terms, Notarisation):
        raise AssertionError("the engine hands over legs of the declared kinds only")
    return terms


def finalisation(work: LegWork) -> registry.Finalisation:
    """How the plan ended, for the contract. An order to close without its outcome is an abort that nothing was known of."""
    closing = work.closing
    outcome = _OUTCOMES[closing.outcome] if closing is not None else registry.PlanStatus.ABORTED
    return registry.Finalisation(work.binding.header.digest, outcome, closing.evidence_digest if closing is not None else bytes(32))
