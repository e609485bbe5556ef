"""What clients can do to plans: accept, execute, cancel, sign. Each request is one transaction with its answer, which is given again for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg
import grpc
import structlog

from coordinator import gates, quotas
from coordinator.certificates import check_release
from coordinator.checks import CapabilityCache, Rules
from coordinator.cut_offs import check_cut_offs
from coordinator.dossier import Consent, Dossier, LegFile, new_plan
from coordinator.engine import Engine, Work
from coordinator.lint import check_capabilities, check_plan
from coordinator.model import ChecksBegun, ExecuteAsked, GateRecord, GateSigned, Quorum, State
from coordinator.peers import JournalPeer
from coordinator.quotas import QuotaSettings
from coordinator.restoring import PayloadsErased
from coordinator.sealing import KeySealed
from coordinator.store import plans, reading, requests, restores
from coordinator.store import quotas as counted
from lockstep_kit.certificate import NotAuthorised, check_gate, matrix_of
from lockstep_kit.errors import LockstepError, aborted, not_found, permission_denied, precondition, unavailable
from lockstep_kit.fence import Epoch
from lockstep_kit.fields import FieldInvalid, require, within
from lockstep_kit.ids import Digest, LegId, PlanId
from lockstep_kit.keys import leg_key, lock_of
from lockstep_kit.permits import check_permit
from lockstep_kit.plan import Leg, LegKind, PlanHeader, TokenTransfer
from lockstep_kit.sod import PLURAL, scope_of, signatures_needed
from lockstep_kit.spans import cause_traceparent, plan_spans
from lockstep_kit.statements import Gate, GateSignature, Verdict

_log = structlog.get_logger()

#: No database was ever put back.
FIRST_GENERATION: Final = 1
#: What a plan's answer is made of.
Respond = Callable[[Dossier], bytes]


@dataclass(frozen=True, slots=True)
class Request:
    """A client's request, as far as its id goes."""

    #: Drawn by the client.
    request_id: str
    #: Method that it was sent to.
    method: str
    #: SHA-256 of its canonical bytes.
    digest: Digest
    #: SPIFFE id of the client that sent it: an answer is given again to nobody else.
    client: str


class Settlement:
    """The plans, as clients can change them."""

    def __init__(
        self, engine: Engine, rules: Rules, capabilities: CapabilityCache, journal: JournalPeer, quota: QuotaSettings
    ) -> None:
        self._engine: Final = engine
        self._journal = journal
        self._rules = rules
        self._quota = quota
        self._capabilities = capabilities

    async def create(
        self, request: Request, header: PlanHeader, legs: tuple[Leg, ...], make: GateSignature, respond: Respond
    ) -> bytes:
        """Accept a plan that its maker signed. Nothing is stored of one that is refused.

        Raises:
            FieldInvalid: lint refuses it.
            LockstepError: the maker may not, the plan's id is taken, or the request's id was used for something else.
        """
        lost = await self._was_lost(header.plan_id)
        async with self._request("create", request, header.plan_id) as (work, told):
            if isinstance(told, bytes):
                return told
            rules, known = self._rules, self._capabilities.known()
            check_plan(header, legs, make, rules.installation, told)
            check_capabilities(header, legs, known, rules.routes, rules.installation.delivery_margin, told)
            check_cut_offs(header, legs, known, rules.routes, rules.installation.delivery_margin, told, preparing=False)
            try:
                scope = scope_of(header, legs)
                actor = check_gate(make, Gate.MAKE, scope, self._engine.registry, told)
                matrix = matrix_of(scope, self._engine.registry)
                quorum = Quorum(*(signatures_needed(matrix, gate, scope) for gate in PLURAL))
                gates.check_staffed(scope, actor.actor_id, quorum, self._engine.registry)
            except NotAuthorised as refusal:
                raise permission_denied(refusal.reason, refusal.detail, plan_id=header.plan_id) from None
            key, sealed = self._engine.box.draw(header.plan_id)
            files = tuple(
                LegFile(leg, self._engine.routes.of(leg.kind), lock_of(leg_key(key, header.plan_id, leg.leg_id))) for leg in legs
            )
            dossier = Dossier(new_plan(header, legs, quorum), header, files, (), 1, told, told, cause_traceparent())
            await self._count(work, request.client, told)
            made = await work.create(dossier, sealed, GateRecord(make, actor.actor_id, told), request.client)
            if made is None:
                taken = "there is a plan with this id already"
                raise LockstepError(grpc.StatusCode.ALREADY_EXISTS, "PLAN_EXISTS", taken, {"plan_id": header.plan_id})
            if lost or await restores.is_orphan(work.tx, header.plan_id):
                before = "a plan with this id was lost with a database that was put back; draw another id"
                raise LockstepError(grpc.StatusCode.ALREADY_EXISTS, "PLAN_ORPHANED", before, {"plan_id": header.plan_id})
            await counted.add_open(work.tx, header.plan_id, request.client)
            return await self._answer(work, request, header.plan_id, respond)

    async def _count(self, work: Work, client: str, now: datetime) -> None:
        """One more plan of a client, which then has one less to create. Other plans of the same client wait for the transaction's end.

        Raises:
            LockstepError: a quota is used up.
        """
        quota = self._quota
        unspent = await counted.lock(work.tx, client, quotas.unspent(quota, now))
        already = await counted.count_open(work.tx, client, quota.open_plans_max)
        await counted.spend(work.tx, client, quotas.admit_plan(quota, already, unspent, now))

    async def _was_lost(self, plan_id: PlanId) -> bool:
        """Whether the journal has a chain of a plan that is about to be created: its first writer was lost with a database that was put back.

        A journal that does not answer keeps nobody from creating plans; it finds another chain's entries itself, and a person is called.
        """
        generation = self._engine.owner.generation
        if generation == FIRST_GENERATION:
            return False
        try:
            return bool(await self._journal.chain(plan_id, Epoch(generation, 1)))
        except PayloadsErased:
            return True
        except (grpc.aio.AioRpcError, FieldInvalid) as error:
            _log.warning("chain_not_asked", plan_id=plan_id, error=type(error).__name__)
            return False

    async def execute(self, request: Request, plan_id: PlanId, payers: Mapping[LegId, Consent], respond: Respond) -> bytes:
        """Start a plan, with exactly its token payers' consents.

        Raises:
            FieldInvalid: a signature is missing or is of no token transfer of the plan, or a permit cannot do what it is for.
            LockstepError: no such plan, not a draft any more, or held by another replica.
        """
        async with self._request("execute", request, plan_id) as (work, told):
            if isinstance(told, bytes):
                return told
            dossier = await held(work, plan_id)
            if dossier.plan.state is not State.DRAFT:
                raise precondition("PLAN_STATE", f"a plan that is {dossier.plan.state} cannot be executed", plan_id=plan_id)
            needed = {leg.leg_id for leg in dossier.legs if leg.kind is LegKind.TOKEN_TRANSFER}
            for leg_id in sorted(needed ^ payers.keys()):
                rule = f"must hold the payer's signature of {leg_id}" if leg_id in needed else f"must not name {leg_id}"
                require(condition=False, field="payer_signatures", rule=f"{rule}: one of each token transfer, and no others")
            for leg in dossier.legs:
                permit = payers[leg.leg_id].permit if leg.leg_id in payers else None
                if permit is not None and isinstance(leg.terms, TokenTransfer):
                    with within(f"payer_signatures[{list(payers).index(leg.leg_id)}].permit"):
                        check_permit(permit, leg.terms, dossier.header)
            if payers:
                await plans.save_payers(work.tx, plan_id, payers)
                work.replace(plans.with_payers(dossier, payers))
            work.step(plan_id, ExecuteAsked())
            work.step(plan_id, ChecksBegun())
            return await self._answer(work, request, plan_id, respond)

    async def cancel(self, request: Request, plan_id: PlanId, signed: GateSignature, etag: str, respond: Respond) -> bytes:
        """Stop a plan before its decision.

        Raises:
            LockstepError: no such plan, decided already, changed since the etag, or the signer may not.
        """
        async with self._request("gate", request, plan_id) as (work, told):
            if isinstance(told, bytes):
                return told
            dossier = await held(work, plan_id)
            if etag and etag != dossier.etag:
                raise aborted("ETAG_MISMATCH", "the plan has changed since", plan_id=plan_id)
            await self._sign(work, dossier, signed)
            return await self._answer(work, request, plan_id, respond)

    async def sign(self, request: Request, plan_id: PlanId, signed: GateSignature, respond: Respond) -> bytes:
        """Open or refuse a gate.

        Raises:
            LockstepError: no such plan, the gate is not open for signing, or the signer may not.
        """
        async with self._request("gate", request, plan_id) as (work, told):
            if isinstance(told, bytes):
                return told
            await self._sign(work, await held(work, plan_id), signed)
            return await self._answer(work, request, plan_id, respond)

    async def _sign(self, work: Work, dossier: Dossier, signed: GateSignature) -> None:
        statement = signed.statement
        quotas.admit_signature(self._quota, len(dossier.plan.gates), statement)
        try:
            record = gates.admit(dossier, signed, self._engine.registry, work.clock)
        except NotAuthorised as refusal:
            about_state = refusal.reason in gates.STATE_REASONS
            raised = precondition if about_state else permission_denied
            raise raised(refusal.reason, refusal.detail, plan_id=dossier.plan_id, state=dossier.plan.state) from None
        if (statement.gate, statement.verdict) == (Gate.RELEASE, Verdict.APPROVE):
            await self._check_release(work, dossier, record)
        work.step(dossier.plan_id, GateSigned(record))

    async def _check_release(self, work: Work, dossier: Dossier, record: GateRecord) -> None:
        """The decision that the release would write can be delivered: every participant would follow it, and the plan's key opens."""
        try:
            keys = await self._engine.leg_keys(work.tx, dossier)
            check_release(dossier, record, keys, self._engine.registry, work.clock)
        except NotAuthorised as refusal:
            why = f"no participant would follow the decision: {refusal.detail}"
            raise precondition(refusal.reason, why, plan_id=dossier.plan_id) from None
        except KeySealed as error:
            raise precondition("PLAN_KEY_SEALED", str(error), plan_id=dossier.plan_id) from None

    @asynccontextmanager
    async def _request(self, kind: str, request: Request, plan_id: PlanId) -> AsyncIterator[tuple[Work, datetime | bytes]]:
        """A transaction for a request: with the database's clock, or the answer that was given before."""
        # A plan that is about to be created belongs to the trace of the call that brings it.
        traces: dict[PlanId, str | None] = {plan_id: None} if kind == "create" else await self._engine.traces.of([plan_id])
        with plan_spans(f"coordinator.{kind}", traces):
            try:
                async with self._engine.work(kind) as work:
                    yield work, await requests.claim(work.tx, request.request_id, request.method, request.digest, request.client)
            except asyncpg.UniqueViolationError as error:
                raise plans.nonce_reused(error) from None

    async def _answer(self, work: Work, request: Request, plan_id: PlanId, respond: Respond) -> bytes:
        response = respond(work.result(plan_id))
        await requests.answer(work.tx, request.request_id, response)
        return response


async def held(work: Work, plan_id: PlanId) -> Dossier:
    """A plan that this replica holds until the transaction ends.

    Raises:
        LockstepError: no such plan, or another replica is working on it.
    """
    found = await work.load([plan_id])
    if plan_id in found:
        return found[plan_id]
    if await reading.exists(work.tx, plan_id):
        raise unavailable("PLAN_HELD_ELSEWHERE", "another replica is working on the plan; try again")
    raise not_found("plan", plan_id)
