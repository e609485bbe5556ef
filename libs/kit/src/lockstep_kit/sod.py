"""Segregation of duties: what a matrix must hold, and what matrix and limits ask of a plan's signers (docs/protocol.md, "Gates"). Pure.

The coordinator judges a plan by the sums over all its legs, a participant by the legs that it sees. Every rule here is monotone in the amounts: what is
allowed for some amounts is allowed for less, and what needs so many signatures never needs more for less. So no participant with an equal registry
refuses what the coordinator let through.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from lockstep_kit.amounts import AssetId
from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.ids import ActorId, Digest
from lockstep_kit.instruments import IssueInstrument
from lockstep_kit.plan import CreditTransfer, Leg, PlanHeader, TokenTransfer
from lockstep_kit.registry import Actor, GateRule, Limits, Matrix, Registry, Role
from lockstep_kit.statements import Gate, Verdict
from lockstep_kit.values import dataclass

#: Gates that let a plan go on; they are signed by different persons, whatever a matrix says.
OPENING: Final = (Gate.MAKE, Gate.APPROVE, Gate.RELEASE, Gate.VALIDATE)
#: Gates that may take several signatures; a plan has one maker, and one person's word stops it.
PLURAL: Final = (Gate.APPROVE, Gate.RELEASE, Gate.VALIDATE)
#: Most persons that one gate may ask for.
SIGNATURES_MAX: Final = 7


@dataclass(frozen=True, slots=True)
class Scope:
    """What a plan's signers are judged by."""

    #: Digest of the plan.
    plan_digest: Digest
    #: Version of the matrix that it names.
    sod_version: int
    #: Minor units by asset, over the legs that the judge sees.
    amounts: Mapping[AssetId, int]


def scope_of(header: PlanHeader, legs: Iterable[Leg]) -> Scope:
    """The scope of a plan for whoever sees these of its legs."""
    amounts: dict[AssetId, int] = {}
    for leg in legs:
        if isinstance(leg.terms, TokenTransfer | CreditTransfer | IssueInstrument):
            asset = leg.terms.amount.asset
            amounts[asset] = amounts.get(asset, 0) + leg.terms.amount.minor_units
    return Scope(header.digest, header.sod_version, amounts)


def bounded(gate: Gate, verdict: Verdict) -> bool:
    """Whether limits and the rule for agents apply: to what lets a plan go on. Whoever has the role may stop it, whatever it is worth."""
    return gate in OPENING and verdict is Verdict.APPROVE


def keeps(limits: Limits, scope: Scope) -> bool:
    """Whether the amounts keep the limits."""
    if limits is None:
        return True
    allowed = {limit.asset: limit.minor_units_max for limit in limits}
    return all(minor_units <= allowed.get(asset, 0) for asset, minor_units in scope.amounts.items())


def affords(actor: Actor, rule: GateRule, scope: Scope) -> bool:
    """Whether one of the roles by which the actor opens the gate is limited to no less than the amounts."""
    return any(each.role in rule.roles & actor.roles and keeps(each.limits, scope) for each in actor.limits)


def admits(actor: Actor, rule: GateRule, scope: Scope) -> bool:
    """Whether the actor is a person, or an agent that the gate is open to for these amounts."""
    return not actor.agent or (rule.agents and keeps(rule.agent_limits, scope))


def signatures_needed(matrix: Matrix, gate: Gate, scope: Scope) -> int:
    """How many different persons the gate takes: the most that any of the plan's assets asks for."""
    asked = (
        threshold.signatures
        for threshold in matrix.gates[gate].thresholds
        if scope.amounts.get(threshold.asset, 0) >= threshold.from_minor_units
    )
    return max(asked, default=1)


def barred_by(matrix: Matrix, gate: Gate) -> frozenset[Gate]:
    """Gates whose signers may not sign this one."""
    return frozenset(other for group in matrix.different_persons if gate in group for other in group if other is not gate)


def able(registry: Registry, scope: Scope, gate: Gate, barred: Collection[ActorId]) -> tuple[Actor, ...]:
    """Everybody who could open the gate, but for those who are barred; nobody where the matrix is not known."""
    matrix = registry.matrices.get(scope.sod_version)
    if matrix is None:
        return ()
    rule = matrix.gates[gate]
    return tuple(
        actor
        for actor in registry.with_role(rule.roles)
        if actor.actor_id not in barred and (gate not in OPENING or (affords(actor, rule, scope) and admits(actor, rule, scope)))
    )


def check_matrix(matrix: Matrix) -> None:
    """What every matrix must hold, whoever wrote it.

    Raises:
        FieldInvalid: the first rule that is broken, with its field inside the matrix.
    """
    require(matrix.version >= 1, "version", "must be at least 1")
    for gate in Gate:
        field = f"gates.{gate}"
        rule = matrix.gates.get(gate)
        if rule is None:
            raise FieldInvalid(field, "must be present")
        require(bool(rule.roles), f"{field}.roles", "must name a role")
        require(Role.AUDITOR not in rule.roles, f"{field}.roles", "must not name auditor, who only reads")
        require(not rule.thresholds or gate in PLURAL, f"{field}.thresholds", "must be absent: one person's signature is enough")
        require(not rule.agents or gate in OPENING, f"{field}.agents", "must be absent: an agent stops a plan by its role")
        _check_thresholds(rule, field)
    four = frozenset(OPENING)
    require(
        any(four <= group for group in matrix.different_persons),
        "different_persons",
        "must have a set with MAKE, APPROVE, RELEASE and VALIDATE: they are four different persons",
    )


def _check_thresholds(rule: GateRule, field: str) -> None:
    for index, each in enumerate(rule.thresholds):
        place = f"{field}.thresholds[{index}]"
        require(each.from_minor_units >= 1, f"{place}.from_minor_units", "must be at least 1")
        require(2 <= each.signatures <= SIGNATURES_MAX, f"{place}.signatures", f"must be 2 to {SIGNATURES_MAX}")
        for other in rule.thresholds[:index]:
            if other.asset != each.asset:
                continue
            require(
                other.from_minor_units < each.from_minor_units,
                f"{place}.from_minor_units",
                "must be more than the asset's one before",
            )
            require(other.signatures < each.signatures, f"{place}.signatures", "must be more than the asset's one before")
    if not rule.agents or not rule.thresholds:
        return
    # Four eyes are persons' eyes: where a gate takes several signatures, no agent gives one.
    require(rule.agent_limits is not None, f"{field}.agents", "must be limited below the gate's thresholds")
    first: dict[AssetId, int] = {}
    for threshold in rule.thresholds:
        first.setdefault(threshold.asset, threshold.from_minor_units)
    for index, limit in enumerate(rule.agent_limits or ()):
        place = f"{field}.agents[{index}].minor_units_max"
        require(
            limit.minor_units_max < first.get(limit.asset, limit.minor_units_max + 1),
            place,
            "must be below the asset's first threshold",
        )
