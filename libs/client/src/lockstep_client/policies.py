"""What an approving or releasing agent may sign: a policy of its own, the registry that it trusts, and nothing on the coordinator's word.

The policy is a YAML file, strictly read. What it does not list is not signed for:

assets: [{asset: EUR, minor_units_max: 1000000}]               # over all legs of a plan
accounts: [DE89370400440532013000, "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"]    # IBANs and addresses between which value may move
accept_expiry_risk: false                                      # whether plans may say so
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from lockstep_client.convert import PlanView
from lockstep_client.evidence import Finding, check_votes
from lockstep_kit.amounts import MINOR_UNITS_MAX, AssetId, known_scale
from lockstep_kit.certificate import NotAuthorised, check_distinct, check_gate
from lockstep_kit.fields import within
from lockstep_kit.ids import ActorId, KeyId
from lockstep_kit.plan import CreditTransfer, Leg, LegKind, TokenTransfer, legs_root
from lockstep_kit.registry import Actor, Limit, Registry
from lockstep_kit.sod import Scope, able, keeps, scope_of, signatures_needed
from lockstep_kit.statements import Gate, Verdict, votes_digest
from lockstep_kit.strict_yaml import read


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AssetPolicy(_Strict):
    """The most of an asset."""

    #: ISO 4217 code or CAIP-19 id.
    asset: str
    #: Inclusive, over all legs of a plan.
    minor_units_max: Annotated[StrictInt, Field(ge=0, le=MINOR_UNITS_MAX)]


class Policy(_Strict):
    """What an agent may sign."""

    #: Assets and their limits.
    assets: list[AssetPolicy]
    #: IBANs and EIP-55 addresses.
    accounts: list[str]
    #: Whether several promises may lapse.
    accept_expiry_risk: StrictBool = False

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The limits as a registry states them."""
        return tuple(Limit(AssetId(each.asset), each.minor_units_max) for each in self.assets)


def read_policy(path: Path) -> Policy:
    """The policy in a file.

    Raises:
        FieldInvalid: the file cannot be read or breaks a rule.
    """
    policy = read(path, Policy)
    for index, each in enumerate(policy.assets):
        with within(f"assets[{index}]"):
            known_scale(each.asset)
    return policy


class PolicyEyes:
    """How an agent that approves or releases sees a plan."""

    def __init__(
        self,
        gate: Gate,
        key_id: KeyId,
        registry: Registry,
        policy: Policy,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._gate = gate
        self._key_id = key_id
        self._registry = registry
        self._policy = policy
        self._clock = clock

    async def inspect(self, views: Sequence[PlanView]) -> list[list[Finding]]:
        """Of each plan everything that keeps the agent from signing, in their order; empty when nothing does."""
        now, found = self._clock(), []
        for view in views:
            found.append(list(self.findings(view, now)))
            await asyncio.sleep(0)
        return found

    def findings(self, view: PlanView, now: datetime) -> Iterator[Finding]:
        """The same, as of a moment."""
        legs = [each.leg for each in view.legs]
        bound = view.header.digest == view.plan_digest and len(legs) == view.header.leg_count
        if not bound or legs_root(legs) != view.header.legs_root:
            yield Finding("PLAN_DIGEST_DIFFERS", "", "the head and the legs that are shown are not those under the plan's digest")
            return
        if now > view.header.deadline:
            yield Finding("DEADLINE_PASSED", "", "the plan's deadline has passed")
        scope = scope_of(view.header, legs)
        yield from self._authority(view, scope, now)
        yield from self._allowed(view, scope)
        if self._gate is Gate.RELEASE:
            yield from self._votes(view)

    def _authority(self, view: PlanView, scope: Scope, now: datetime) -> Iterator[Finding]:
        """By the agent's own registry it may sign this gate, and whoever had to sign before it did."""
        matrix = self._registry.matrices.get(scope.sod_version)
        if matrix is None:
            yield Finding("SOD_VERSION_UNKNOWN", "", f"the registry has no version {scope.sod_version} of the matrix of duties")
            return
        before = (Gate.MAKE, Gate.APPROVE) if self._gate is Gate.RELEASE else (Gate.MAKE,)
        people: list[ActorId] = []
        for gate in before:
            signers = self._signers(view, gate, scope, now)
            if len(signers) < signatures_needed(matrix, gate, scope):
                yield Finding("GATE_MISSING", "", f"the gate {gate} is not shown to be open", may_pass=gate is Gate.APPROVE)
            people.extend(sorted(signers))
        own = next((each for each in self._registry.actors if self._owns(each)), None)
        if own is None or own not in able(self._registry, scope, self._gate, ()):
            yield Finding("AGENT_NOT_ABLE", "", f"this key's owner may not sign the gate {self._gate} for such a plan")
            return
        try:
            check_distinct([*people, own.actor_id])
        except NotAuthorised as error:
            yield Finding(error.reason, "", error.detail)

    def _owns(self, actor: Actor) -> bool:
        return any(key.public.key_id == self._key_id for key in actor.keys)

    def _signers(self, view: PlanView, gate: Gate, scope: Scope, now: datetime) -> set[ActorId]:
        found: set[ActorId] = set()
        for each in view.gates:
            statement = each.signed.statement
            if statement.gate is gate and statement.verdict is Verdict.APPROVE:
                try:
                    found.add(check_gate(each.signed, gate, scope, self._registry, now).actor_id)
                except NotAuthorised:
                    # What does not hold is nobody's signature; that too few hold is said by who counts them.
                    continue
        return found

    def _allowed(self, view: PlanView, scope: Scope) -> Iterator[Finding]:
        """The policy lists the assets, the amounts and the accounts."""
        if not keeps(self._policy.limits, scope):
            yield Finding("POLICY_AMOUNT", "", "the plan moves more of an asset than the agent's policy lists")
        if view.header.policy.accept_expiry_risk and not self._policy.accept_expiry_risk:
            yield Finding("POLICY_EXPIRY_RISK", "", "the plan accepts that promises lapse, and the agent's policy does not")
        for each in view.legs:
            if each.leg.kind is LegKind.ISSUE_INSTRUMENT:
                yield Finding("POLICY_KIND", each.leg.leg_id, "an agent signs for no undertaking")
            for account in _accounts(each.leg):
                if account not in self._policy.accounts:
                    yield Finding("POLICY_ACCOUNT", each.leg.leg_id, f"the agent's policy does not list {account}")

    def _votes(self, view: PlanView) -> Iterator[Finding]:
        """Every leg's YES is its participant's, over this very leg, and stands until after the deadline."""
        yield from check_votes(view, self._registry)
        votes = [each.vote for each in view.legs if each.vote is not None]
        if view.votes_digest != votes_digest(votes):
            yield Finding("VOTES_DIGEST_DIFFERS", "", "the plan's votes digest is not that of the votes that are shown")
        promises = [(each.vote.leg_id, each.vote.promise) for each in votes]
        for leg_id, promise in promises:
            if promise is not None and promise.expires_at is not None and promise.expires_at <= view.header.deadline:
                yield Finding("PROMISE_TOO_SHORT", leg_id, "the promise ends before the plan's deadline")
        soft = [leg_id for leg_id, promise in promises if promise is not None and promise.soft]
        if len(soft) > 1 and not view.header.policy.accept_expiry_risk:
            yield Finding("TWO_SOFT_LEGS", soft[1], "more than one promise can lapse, and the plan does not accept that risk")


def _accounts(leg: Leg) -> tuple[str, ...]:
    match leg.terms:
        case TokenTransfer() as token:
            return (token.payer, token.payee)
        case CreditTransfer() as credit:
            return (credit.debtor.iban, credit.creditor.iban)
        case _:
            return ()
