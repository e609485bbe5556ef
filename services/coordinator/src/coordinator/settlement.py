"""What clients can do to plans: accept, execute, cancel, sign. Each request is done once, in one transaction with its answer, which is given again for ever."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import grpc
import structlog

from coordinator import gates, quotas
from coordinator.answering import Answering, Asked, PlanRaced, Refusals, load
from coordinator.certificates import check_release
from coordinator.checks import CapabilityCache, Rules
from coordinator.cut_offs import check_cut_offs
from coordinator.dossier import Consent, Dossier, LegFile, new_plan
from coordinator.engine import Engine, Newcomer, Work
from coordinator.lint import check_capabilities, check_plan
from coordinator.model import ChecksBegun, ExecuteAsked, GateRecord, GateSigned, Quorum, State
from coordinator.peers import JournalPeer
from coordinator.pressure import overloaded
from coordinator.quotas import QuotaSettings
from coordinator.restoring import PayloadsErased
from coordinator.sealing import KeySealed
from coordinator.store import accepting, plans
from coordinator.store import quotas as counted
from coordinator.store.accepting import Nonce, Taken
from lockstep_kit.certificate import NotAuthorised, check_gate, matrix_of
from lockstep_kit.errors import LockstepError, aborted, permission_denied, precondition
from lockstep_kit.fence import Epoch
from lockstep_kit.fields import FieldInvalid, require, within
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.keys import leg_key, lock_of
from lockstep_kit.participant.ports import Capabilities
from lockstep_kit.permits import check_permit
from lockstep_kit.plan import Leg, LegKind, PlanHeader, TokenTransfer
from lockstep_kit.sod import PLURAL, scope_of, signatures_needed
from lockstep_kit.statements import Gate, GateSignature, Verdict
from lockstep_kit.values import dataclass, replace

_log = structlog.get_logger()

#: No database was ever put back.
FIRST_GENERATION: Final = 1
#: Plans whose chains the journal is asked for at a time.
_CHAINS_AT_ONCE: Final = 16
#: Plans that are checked before others have their turn: a check is arithmetic and signatures.
_CHECKED_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Creation(Asked):
    """A plan that a client asks for."""

    #: Head.
    header: PlanHeader
    #: Legs in plan order.
    legs: tuple[Leg, ...]
    #: The maker's signature.
    make: GateSignature
    #: Whether the journal has a chain of a plan of the same id, whose first writer was lost with a database that was put back.
    lost: bool = False

    @property
    def signature(self) -> GateSignature:
        """The maker's."""
        return self.make


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Execution(Asked):
    """A plan that is to be started."""

    #: Its token payers' consents.
    payers: Mapping[LegId, Consent]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Signing(Asked):
    """A person's signature, for a gate or to cancel."""

    #: The signature.
    signed: GateSignature
    #: What the plan must not have changed since; "" says nothing.
    etag: str = ""

    @property
    def signature(self) -> GateSignature:
        """The person's."""
        return self.signed


class Settlement:
    """The plans, as clients can change them. What is asked alone and what comes in batches is done in the same way, and together."""

    def __init__(
        self, engine: Engine, rules: Rules, capabilities: CapabilityCache, journal: JournalPeer, quota: QuotaSettings
    ) -> None:
        self._engine: Final = engine
        self._journal = journal
        self._rules = rules
        self._quota = quota
        self._capabilities = capabilities
        self._creating: Answering[Creation] = Answering(engine, "create", self._create)
        self._executing: Answering[Execution] = Answering(engine, "execute", self._execute)
        #: Opens and refuses gates, and stops plans before their decisions.
        self.signing: Final[Answering[Signing]] = Answering(engine, "gate", self._sign)

    async def drained(self) -> None:
        """Return once nothing is under way."""
        for each in (self._creating, self._executing, self.signing):
            await each.drained()

    # -- Creating ----------------------------------------------------------------------------------------------------

    async def create(self, asked: Creation) -> bytes:
        """Accept a plan that its maker signed. Nothing is stored of one that is refused.

        Raises:
            FieldInvalid: lint refuses it.
            LockstepError: the maker may not, a quota is used up, the plan's id is taken, the request's id was used for something else, or there is
                too much under way.
        """
        self._engine.pressure.check(asked.request.client, asked.plan_id)
        (asked,) = await self._with_chains([asked])
        return await self._creating.one(asked)

    async def create_each(self, asked: Sequence[Creation]) -> list[bytes | Exception]:
        """The same of many, each by itself.

        Raises:
            LockstepError: there is too much under way for any of them.
        """
        if asked:
            self._engine.pressure.check(asked[0].request.client, asked[0].plan_id)
        return await self._creating.each(await self._with_chains(asked))

    async def _create(self, work: Work, asked: Sequence[Creation], now: datetime, refused: Refusals) -> None:
        checked = await self._checked(asked, now, refused)
        taken = await accepting.taken(
            work.tx, [each.plan_id for each in checked], [accepting.nonce_of(each.make) for each in checked]
        )
        for each in checked:
            with refused.of(each):
                _check_free(each, taken)
        await self._count(work, [each for each in checked if each not in refused], now, refused)
        accepted = {each: draft for each, draft in checked.items() if each not in refused}
        if not accepted:
            return
        new = [self._drawn(each, *draft, now) for each, draft in accepted.items()]
        if not await work.create(new):
            raise PlanRaced(_taken(new[0].dossier.plan_id))
        await counted.add_open(work.tx, {each.plan_id: each.request.client for each in accepted})

    async def _checked(
        self, asked: Sequence[Creation], now: datetime, refused: Refusals
    ) -> dict[Creation, tuple[GateRecord, Quorum]]:
        """Those that break no rule, each with its maker's record and the signatures that its gates take. Nobody is asked anything."""
        known, found = self._capabilities.known(), {}
        for place, each in enumerate(asked, start=1):
            with refused.of(each):
                found[each] = self._check(each, known, now)
            if place % _CHECKED_AT_ONCE == 0:
                await asyncio.sleep(0)
        return found

    def _check(self, asked: Creation, known: Mapping[str, Capabilities], now: datetime) -> tuple[GateRecord, Quorum]:
        rules, header, legs = self._rules, asked.header, asked.legs
        margin, registry = rules.installation.delivery_margin, self._engine.registry
        check_plan(header, legs, asked.make, rules.installation, now)
        check_capabilities(header, legs, known, rules.routes, margin, now)
        check_cut_offs(header, legs, known, rules.routes, margin, now, preparing=False)
        try:
            scope = scope_of(header, legs)
            actor = check_gate(asked.make, Gate.MAKE, scope, registry, now)
            matrix = matrix_of(scope, registry)
            quorum = Quorum(*(signatures_needed(matrix, gate, scope) for gate in PLURAL))
            gates.check_staffed(scope, actor.actor_id, quorum, registry)
        except NotAuthorised as refusal:
            raise permission_denied(refusal.reason, refusal.detail, plan_id=header.plan_id) from None
        return GateRecord(asked.make, actor.actor_id, now), quorum

    def _drawn(self, asked: Creation, make: GateRecord, quorum: Quorum, now: datetime) -> Newcomer:
        """The plan with its key, freshly drawn."""
        header, legs = asked.header, asked.legs
        key, sealed = self._engine.box.draw(header.plan_id)
        files = tuple(
            LegFile(leg, self._engine.routes.of(leg.kind), lock_of(leg_key(key, header.plan_id, leg.leg_id))) for leg in legs
        )
        dossier = Dossier(new_plan(header, legs, quorum), header, files, (), 1, now, now, asked.cause)
        return Newcomer(dossier, sealed, make, asked.request.client)

    async def _count(self, work: Work, asked: Sequence[Creation], now: datetime, refused: Refusals) -> None:
        """So many more plans of their clients, which then have less to create. Other plans of the same clients wait for the transaction's end."""
        if not asked:
            return
        quota, clients = self._quota, {each.request.client for each in asked}
        left = await counted.lock(work.tx, clients, quotas.unspent(quota, now))
        opened = Counter(await counted.count_open(work.tx, clients, quota.open_plans_max))
        for each in asked:
            client = each.request.client
            with refused.of(each):
                left[client] = quotas.admit_plan(quota, opened[client], left[client], now)
                opened[client] += 1
        await counted.spend(work.tx, left)

    async def _with_chains(self, asked: Sequence[Creation]) -> list[Creation]:
        """The same, each with whether the journal has a chain of its plan already."""
        if self._engine.owner.generation == FIRST_GENERATION:
            return list(asked)
        turns = asyncio.Semaphore(_CHAINS_AT_ONCE)

        async def look(each: Creation) -> Creation:
            async with turns:
                return replace(each, lost=await self._was_lost(each.plan_id))

        return await asyncio.gather(*map(look, asked))

    async def _was_lost(self, plan_id: PlanId) -> bool:
        """Whether the journal has a chain of a plan that is about to be created: its first writer was lost with a database that was put back.

        A journal that does not answer keeps nobody from creating plans; it finds another chain's entries itself, and a person is called.
        """
        try:
            return bool(await self._journal.chain(plan_id, Epoch(self._engine.owner.generation, 1)))
        except PayloadsErased:
            return True
        except (grpc.aio.AioRpcError, FieldInvalid) as error:
            _log.warning("chain_not_asked", plan_id=plan_id, error=type(error).__name__)
            return False

    # -- Executing ---------------------------------------------------------------------------------------------------

    async def execute(self, asked: Execution) -> bytes:
        """Start a plan, with exactly its token payers' consents.

        Raises:
            FieldInvalid: they are others.
            LockstepError: it is no draft any more, or there is too much under way.
        """
        (answer,) = await self.execute_each([asked])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def execute_each(self, asked: Sequence[Execution]) -> list[bytes | Exception]:
        """The same of many of one client, each by itself; those for which there is no room are turned away."""
        if not asked:
            return []
        pressure = self._engine.pressure
        begun = pressure.begin(asked[0].request.client, [each.plan_id for each in asked])
        let = [each for each in asked if pressure.knows(each.plan_id)]
        done = dict(zip((each.request.request_id for each in let), await self._executing.each(let), strict=True))
        pressure.ended(
            each.plan_id for each in let if each.plan_id in begun and isinstance(done[each.request.request_id], Exception)
        )
        # Those who came together come again together.
        later = overloaded(asked[0].plan_id)
        return [done.get(each.request.request_id, later) for each in asked]

    async def _execute(self, work: Work, asked: Sequence[Execution], _: datetime, refused: Refusals) -> None:
        consents = {}
        for each, dossier in await load(work, asked, refused):
            with refused.of(each):
                _check_executable(dossier, each.payers)
                if each.payers:
                    consents[each.plan_id] = each.payers
                    work.replace(accepting.with_payers(dossier, each.payers))
                work.step(each.plan_id, ExecuteAsked())
                work.step(each.plan_id, ChecksBegun())
        await accepting.save_payers(work.tx, consents)

    # -- Signing -----------------------------------------------------------------------------------------------------

    async def _sign(self, work: Work, asked: Sequence[Signing], _: datetime, refused: Refusals) -> None:
        found = await load(work, asked, refused)
        used = await accepting.used(work.tx, [accepting.nonce_of(each.signed) for each, _ in found])
        keys = await self._engine.leg_keys(work.tx, [dossier for each, dossier in found if _releases(each.signed)])
        for each, dossier in found:
            with refused.of(each):
                if each.etag and each.etag != dossier.etag:
                    raise aborted("ETAG_MISMATCH", "the plan has changed since", plan_id=each.plan_id)
                record = self._admitted(dossier, each.signed, work.clock)
                if _releases(each.signed):
                    self._check_release(dossier, record, keys[each.plan_id], work.clock)
                _check_fresh(each.signed, used)
                work.step(each.plan_id, GateSigned(record))

    def _admitted(self, dossier: Dossier, signed: GateSignature, now: datetime) -> GateRecord:
        quotas.admit_signature(self._quota, len(dossier.plan.gates), signed.statement)
        try:
            return gates.admit(dossier, signed, self._engine.registry, now)
        except NotAuthorised as refusal:
            about_state = refusal.reason in gates.STATE_REASONS
            raised = precondition if about_state else permission_denied
            raise raised(refusal.reason, refusal.detail, plan_id=dossier.plan_id, state=dossier.plan.state) from None

    def _check_release(self, dossier: Dossier, record: GateRecord, keys: Mapping[LegId, bytes] | KeySealed, now: datetime) -> None:
        """The decision that the release would write can be delivered: every participant would follow it, and the plan's key opens."""
        if isinstance(keys, KeySealed):
            raise precondition("PLAN_KEY_SEALED", str(keys), plan_id=dossier.plan_id)
        try:
            check_release(dossier, record, keys, self._engine.registry, now)
        except NotAuthorised as refusal:
            why = f"no participant would follow the decision: {refusal.detail}"
            raise precondition(refusal.reason, why, plan_id=dossier.plan_id) from None


def _check_free(asked: Creation, taken: Taken) -> None:
    if asked.plan_id in taken.plans:
        raise _taken(asked.plan_id)
    if asked.lost or asked.plan_id in taken.orphans:
        before = "a plan with this id was lost with a database that was put back; draw another id"
        raise LockstepError(grpc.StatusCode.ALREADY_EXISTS, "PLAN_ORPHANED", before, {"plan_id": asked.plan_id})
    _check_fresh(asked.make, taken.nonces)


def _taken(plan_id: PlanId) -> LockstepError:
    return LockstepError(
        grpc.StatusCode.ALREADY_EXISTS, "PLAN_EXISTS", "there is a plan with this id already", {"plan_id": plan_id}
    )


def _check_fresh(signed: GateSignature, used: frozenset[Nonce]) -> None:
    if accepting.nonce_of(signed) in used:
        raise plans.nonce_reused()


def _check_executable(dossier: Dossier, payers: Mapping[LegId, Consent]) -> None:
    """A plan can be started, and these are exactly its token payers' consents.

    Raises:
        FieldInvalid: a signature is missing or is of no token transfer of the plan, or a permit cannot do what it is for.
        LockstepError: it is not a draft any more.
    """
    if dossier.plan.state is not State.DRAFT:
        raise precondition("PLAN_STATE", f"a plan that is {dossier.plan.state} cannot be executed", plan_id=dossier.plan_id)
    needed = {leg.leg_id for leg in dossier.legs if leg.kind is LegKind.TOKEN_TRANSFER}
    for leg_id in sorted(needed ^ payers.keys()):
        rule = f"must hold the payer's signature of {leg_id}" if leg_id in needed else f"must not name {leg_id}"
        require(condition=False, field="payer_signatures", rule=f"{rule}: one of each token transfer, and no others")
    for leg in dossier.legs:
        permit = payers[leg.leg_id].permit if leg.leg_id in payers else None
        if permit is not None and isinstance(leg.terms, TokenTransfer):
            with within(f"payer_signatures[{list(payers).index(leg.leg_id)}].permit"):
                check_permit(permit, leg.terms, dossier.header)


def _releases(signed: GateSignature) -> bool:
    return (signed.statement.gate, signed.statement.verdict) == (Gate.RELEASE, Verdict.APPROVE)
