"""Plan lint: what must hold of a plan before anything is stored or asked of anyone. Pure; one named refusal per rule.

`check_plan` needs only the plan and what this installation knows; `check_capabilities` needs what the participants say of themselves, and is asked
again before Prepare. Form rules of single fields (checksums, lengths, amounts) are `lockstep_kit.plan`'s and were checked on the way in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from coordinator.participants import Routes
from lockstep_kit.amounts import Amount, erc20_asset
from lockstep_kit.fields import require, within
from lockstep_kit.ids import LegId
from lockstep_kit.instruments import IssueInstrument
from lockstep_kit.participant.ports import Capabilities
from lockstep_kit.plan import LEGS_MAX, CreditTransfer, Journal, Leg, LegKind, Notarisation, PlanHeader, TokenTransfer, legs_root
from lockstep_kit.statements import Gate, GateSignature, Verdict
from lockstep_kit.values import dataclass


@dataclass(frozen=True, slots=True)
class Installation:
    """What plans of this installation may name, and how far ahead they may reach."""

    #: Asset -> its scale; what is not here is not settled here.
    assets: Mapping[str, int]
    #: CAIP-2 ids of the chains.
    chains: frozenset[str]
    #: EIP-55 addresses of the escrow contracts.
    escrows: frozenset[str]
    #: EIP-55 addresses of the notary registries.
    registries: frozenset[str]
    #: BICs of the banks.
    banks: frozenset[str]
    #: Versions of the segregation-of-duties matrix that are in force.
    sod_versions: frozenset[int]
    #: A deadline that is nearer leaves people no time.
    deadline_min: timedelta
    #: A deadline that is farther ties up holds for too long.
    deadline_max: timedelta
    #: Between the deadline and the end of every promise.
    delivery_margin: timedelta


#: Field of a policy that the plan's legs cannot carry out.
UNWIND_FIELD: Final = "header.policy.unwind_automatically"

#: What every plan has exactly one of.
_ONCE: Final = (LegKind.NOTARISATION, LegKind.JOURNAL)


def check_plan(header: PlanHeader, legs: Sequence[Leg], make: GateSignature, known: Installation, now: datetime) -> None:
    """A plan that this installation can accept. Fields are named as in CreatePlanRequest.

    Raises:
        FieldInvalid: the first rule that is broken.
    """
    _check_legs(header, legs)
    _check_dependencies(legs)
    _check_irrevocable(legs)
    _check_times(header, make, known, now)
    require(header.sod_version in known.sod_versions, "header.sod_version", "must be a version that is in force here")
    require(make.statement.gate is Gate.MAKE, "make.gate", "must be the gate MAKE")
    require(make.statement.verdict is Verdict.APPROVE, "make.verdict", "must be APPROVE")
    for index, leg in enumerate(legs):
        with within(f"legs[{index}].{leg.kind.value}"):
            _check_terms(leg, known, header.deadline)


def _check_legs(header: PlanHeader, legs: Sequence[Leg]) -> None:
    require(1 <= len(legs) <= LEGS_MAX, "legs", f"must be 1 to {LEGS_MAX}")
    require(header.leg_count == len(legs), "header.leg_count", "must be the number of legs")
    seen: set[LegId] = set()
    for index, leg in enumerate(legs):
        require(leg.leg_id not in seen, f"legs[{index}].leg_id", "must be unique in the plan")
        seen.add(leg.leg_id)
    require(header.legs_root == legs_root(legs), "header.legs_root", "must be the Merkle root over the legs, in plan order")
    require(any(leg.settling for leg in legs), "legs", "must hold at least one leg that moves value")
    for kind in _ONCE:
        count = sum(leg.kind is kind for leg in legs)
        require(count == 1, "legs", f"must hold exactly one {kind.value} leg")


def _check_dependencies(legs: Sequence[Leg]) -> None:
    settling = {leg.leg_id: leg for leg in legs if leg.settling}
    for index, leg in enumerate(legs):
        require(leg.settling or not leg.depends_on, f"legs[{index}].depends_on", "must be empty for evidence legs")
        for place, before in enumerate(leg.depends_on):
            field = f"legs[{index}].depends_on[{place}]"
            require(before != leg.leg_id, field, "must not name the leg itself")
            require(before in settling, field, "must name a leg of this plan that moves value")
    placed: set[LegId] = set()
    waiting = list(settling.values())
    while waiting:
        ready = [leg for leg in waiting if placed.issuperset(leg.depends_on)]
        stuck = next(index for index, leg in enumerate(legs) if leg is waiting[0])
        require(bool(ready), f"legs[{stuck}].depends_on", "must not lead back to the leg itself")
        placed.update(leg.leg_id for leg in ready)
        waiting = [leg for leg in waiting if leg.leg_id not in placed]


def _check_irrevocable(legs: Sequence[Leg]) -> None:
    """What nobody can undo is commanded when all else is done: nothing waits for it, and there is one of it, since a second could be refused."""
    irrevocable = {leg.leg_id for leg in legs if leg.kind.irrevocable}
    for index, leg in enumerate(legs):
        for place, before in enumerate(leg.depends_on):
            rule = "must name a leg that can be undone: an irrevocable leg is executed last"
            require(before not in irrevocable, f"legs[{index}].depends_on[{place}]", rule)
        rule = "must be the plan's only irrevocable leg"
        require(leg.leg_id not in irrevocable or len(irrevocable) == 1, f"legs[{index}]", rule)


def _check_times(header: PlanHeader, make: GateSignature, known: Installation, now: datetime) -> None:
    left = header.deadline - now
    require(left > timedelta(0), "header.deadline", "must be in the future")
    least, most = int(known.deadline_min.total_seconds()), int(known.deadline_max.total_seconds())
    require(left >= known.deadline_min, "header.deadline", f"must be at least {least} seconds away")
    require(left <= known.deadline_max, "header.deadline", f"must be at most {most} seconds away")
    require(make.statement.expires_at >= header.deadline, "make.expire_time", "must not be before the plan's deadline")


def _check_terms(leg: Leg, known: Installation, deadline: datetime) -> None:
    match leg.terms:
        case TokenTransfer() as token:
            _check_amount(token.amount, known.assets)
            chain = erc20_asset(token.amount.asset).chain
            require(chain in known.chains, "amount.asset", "must be on a chain of this installation")
            require(token.escrow in known.escrows, "escrow", "must be an escrow contract of this installation")
        case CreditTransfer() as credit:
            _check_amount(credit.amount, known.assets)
            for side, account in (("debtor", credit.debtor), ("creditor", credit.creditor)):
                require(account.agent_bic in known.banks, f"{side}.agent_bic", "must be a bank that this installation reaches")
        case IssueInstrument() as instrument:
            _check_amount(instrument.amount, known.assets)
            require(instrument.issuing_bic in known.banks, "issuing_bic", "must be a bank that this installation reaches")
            # A day is over last at UTC-12 and first at UTC+14: the next day's end lies after all of this one in UTC, wherever it is told.
            latest = (deadline + known.delivery_margin).astimezone(UTC).date()
            rule = f"must be after {latest.isoformat()}: the deadline and the delivery margin reach into that day (UTC)"
            require(instrument.expiry_date > latest, "expiry_date", rule)
        case Notarisation() as notarisation:
            require(notarisation.chain in known.chains, "chain", "must be a chain of this installation")
            require(notarisation.registry in known.registries, "registry", "must be a notary registry of this installation")
        case Journal():
            pass


def _check_amount(amount: Amount, assets: Mapping[str, int]) -> None:
    require(amount.asset in assets, "amount.asset", "must be an asset of this installation")
    scale = assets[amount.asset]
    require(amount.scale == scale, "amount.scale", f"must be {scale}, the scale of {amount.asset} in this installation")


def check_capabilities(
    header: PlanHeader,
    legs: Sequence[Leg],
    capabilities: Mapping[str, Capabilities],
    routes: Routes,
    margin: timedelta,
    now: datetime,
) -> None:
    """Every leg is one that its participant can promise for as long as the plan needs. Participants that are not listed are not asked.

    Raises:
        FieldInvalid: the first rule that is broken.
    """
    soft = 0
    lapsing = {leg.leg_id: _lapses(capabilities.get(routes.of(leg.kind)), leg) for leg in legs}
    for index, leg in enumerate(legs):
        can = capabilities.get(routes.of(leg.kind))
        if can is None:
            continue
        with within(f"legs[{index}]"):
            require(leg.kind.value in can.leg_kinds, "terms", f"must be of a kind that {routes.of(leg.kind)} serves")
            with within(leg.kind.value):
                _check_served(leg, can)
        _check_unwind(header, leg, can)
        least = f"{can.promise_margin.total_seconds():g} seconds that {routes.of(leg.kind)} asks for"
        rule = f"must be outlived by every promise, and the delivery margin of this installation is shorter than the {least}"
        require(margin >= can.promise_margin, "header.deadline", rule)
        if can.promise_max is not None and _lapses(can, leg):
            needed = header.deadline + margin - now
            most = int(can.promise_max.total_seconds())
            rule = f"must leave room: with the delivery margin it must lie within the {most} seconds that {routes.of(leg.kind)} can promise"
            require(needed <= can.promise_max, "header.deadline", rule)
        if leg.settling and _lapses(can, leg):
            soft += 1
            alone = not leg.kind.irrevocable or sum(each.settling for each in legs) == 1
            rule = "must be promised without an end: an irrevocable leg is executed last, and a promise that can lapse first"
            require(alone, f"legs[{index}]", rule)
            allowed = soft <= 1 or header.policy.accept_expiry_risk
            rule = "must be the only one whose promise can lapse, unless the policy says accept_expiry_risk"
            require(allowed, f"legs[{index}]", rule)
            for place, before in enumerate(leg.depends_on):
                rule = "must be a leg whose promise can lapse too: such legs are executed before all others"
                require(lapsing[before] is not False, f"legs[{index}].depends_on[{place}]", rule)


def _lapses(can: Capabilities | None, leg: Leg) -> bool | None:
    """Whether what a participant promises of a leg can lapse; None of one that was not asked."""
    return None if can is None else can.lapses(leg.kind.value)


def _check_unwind(header: PlanHeader, leg: Leg, can: Capabilities) -> None:
    """Whoever signs that a plan unwinds by itself is not told afterwards that its tokens never could: only for them is there a choice of asset."""
    if not header.policy.unwind_automatically or not isinstance(leg.terms, TokenTransfer):
        return
    reversible = {each.asset for each in can.assets if each.reversible}
    rule = f"must be false: {leg.leg_id} moves {leg.terms.amount.asset}, of which nothing that was paid can be taken back"
    require(leg.terms.amount.asset in reversible, UNWIND_FIELD, rule)


def _check_served(leg: Leg, can: Capabilities) -> None:
    if isinstance(leg.terms, Notarisation) and leg.terms.anchoring is not None:
        served = ", ".join(can.anchorings) or "none"
        require(leg.terms.anchoring in can.anchorings, "anchoring", f"must be absent, or one that the notary serves: {served}")
    if isinstance(leg.terms, TokenTransfer | CreditTransfer | IssueInstrument) and can.assets:
        scales = {each.asset: each.scale for each in can.assets}
        asset, scale = leg.terms.amount.asset, leg.terms.amount.scale
        require(asset in scales, "amount.asset", "must be an asset that the participant moves")
        require(scales[asset] == scale, "amount.scale", "must be the scale that the participant knows")
    if not can.venues:
        return
    match leg.terms:
        case TokenTransfer() as token:
            require(token.escrow in can.venues, "escrow", "must be the participant's escrow contract")
        case CreditTransfer() as credit:
            require(credit.debtor.agent_bic in can.venues, "debtor.agent_bic", "must be a bank that the participant instructs")
        case IssueInstrument() as instrument:
            require(instrument.issuing_bic in can.venues, "issuing_bic", "must be a bank that the participant instructs")
        case Notarisation() as notarisation:
            require(notarisation.registry in can.venues, "registry", "must be the participant's registry")
        case Journal():
            pass
