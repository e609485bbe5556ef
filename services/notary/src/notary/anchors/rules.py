"""Plans in batches: what is to be recorded of a plan, and what its leg is answered. Pure.

The rules are the NotaryRegistry's: the first outcome is the only one, a plan that ended is never registered, and only an abort needs no registration. A
standing has the contract's own names, and one table (`operations.RULES`) says what each means in each phase, whether it stands on the contract or here.
"""

from __future__ import annotations

from typing import Final

from lockstep_chain.judging import Stuck, Unmoved
from lockstep_contracts.notary import PlanStatus
from lockstep_kit.fence import Finding, Phase
from lockstep_kit.merkle import leaf_hash
from lockstep_kit.participant.ports import Completion, LegWork
from lockstep_kit.plan import Anchoring, Notarisation
from lockstep_kit.statements import BatchEvidence, ChainEvidence, Promise, PromiseKind, Refusal
from lockstep_kit.values import dataclass
from notary.anchors.leaves import OUTCOMES, Ending, Registration, Saying
from notary.operations import RULES, finalisation


@dataclass(frozen=True, slots=True)
class Leaf:
    """What was recorded of a plan."""

    #: What it says.
    saying: Saying
    #: The registry's entry of its batch's root; None until that is final.
    root: ChainEvidence | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What is recorded of a plan."""

    #: That it is registered.
    registration: Leaf | None = None
    #: How it ended.
    ending: Leaf | None = None

    @property
    def status(self) -> str:
        """The same by the contract's names."""
        if self.ending is not None and isinstance(self.ending.saying, Ending):
            return OUTCOMES[self.ending.saying.outcome]
        return "None" if self.registration is None else "Registered"


#: Nothing is recorded.
UNKNOWN: Final = Standing()


def missing(work: LegWork, standing: Standing) -> tuple[Saying, ...]:
    """What is to be recorded now, in order; nothing where something that is recorded speaks against it.

    A plan that is committed, or mixed, was registered: its registration is missing only where the notary's database was put back to before it, and is
    recorded anew. Where it is anchored says since when it is known.
    """
    digest = work.binding.header.digest
    registration = Registration(digest)
    if standing.ending is not None:
        return ()
    if work.phase is Phase.PREPARING:
        return () if standing.registration is not None else (registration,)
    if work.phase not in (Phase.COMMITTING, Phase.ABORTING):
        return ()
    final = finalisation(work)
    ending = Ending(digest, final.outcome, final.evidence_hash)
    if standing.registration is None and final.outcome is not PlanStatus.ABORTED:
        return registration, ending
    return (ending,)


def judge(work: LegWork, standing: Standing) -> Completion | Stuck | None:
    """What a leg is answered; None: nothing yet, its batch is not anchored or nothing is recorded."""
    status = standing.status
    told = RULES.table.get((work.phase, status), Unmoved.STUCK)
    if told is Unmoved.STUCK:
        return Stuck(f"the plan is {status} while the leg is {work.phase}")
    if not isinstance(told, Finding):
        return None
    if told in (Finding.VOTED_NO, Finding.REFUSED):
        refusal = Refusal(RULES.reasons[work.phase], status, f"the plan is {status} in the notary's batches")
        return Completion(work.plan_id, work.leg_id, told, refusal=refusal)
    leaf = standing.registration if told is Finding.VOTED_YES else standing.ending
    if leaf is None or (anchoring_of(work) is not Anchoring.DEFERRED and leaf.root is None):
        return None
    evidence = BatchEvidence(leaf_hash(leaf.saying.leaf_data()), leaf.root)
    if told is Finding.VOTED_YES:
        promise = Promise(PromiseKind.GUARANTEED, expires_at=None, evidence=evidence)
        return Completion(work.plan_id, work.leg_id, told, promise=promise)
    return Completion(work.plan_id, work.leg_id, told, evidence=evidence)


def recorded(standing: Standing, sayings: tuple[Saying, ...]) -> Standing:
    """The standing once these are recorded."""
    after = standing
    for each in sayings:
        leaf = Leaf(each)
        after = Standing(leaf, after.ending) if isinstance(each, Registration) else Standing(after.registration, leaf)
    return after


def anchoring_of(work: LegWork) -> Anchoring | None:
    """How a leg's plan gets on chain in batches; None: it does not."""
    terms = work.binding.leg.terms
    return terms.anchoring if isinstance(terms, Notarisation) else None
