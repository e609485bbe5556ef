"""What the gateway does when a leg enters a working phase: builds messages, keeps them, queues them. Holds no rules."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from bank_gateway import store
from bank_gateway.iso20022 import writer
from bank_gateway.iso20022.schemas import Schemas
from bank_gateway.messages import Envelope, Kind
from bank_gateway.payments import CANCELLATION_REASON, credit_terms, evidence_of, payment_of
from bank_gateway.references import message_id, references
from bank_gateway.settings import BankGatewaySettings
from lockstep_kit.amounts import known_scale
from lockstep_kit.db import Connection
from lockstep_kit.fence import Finding, Phase
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.participant.ports import AssetCapability, Capabilities, Completion, LegWork
from lockstep_kit.statements import PromiseKind, Refusal

#: Money that a bank has booked comes back by its new owner's consent only, which is another payment and not this leg.
STAYS_PAID: Final = Refusal("REVERSAL_UNSUPPORTED", "", "a booked credit transfer is returned by its creditor, not taken back")


@dataclass
class BankOperations:
    """`Operations` of a participant whose legs are payments at one bank."""

    #: Who we are, and who the bank is.
    settings: BankGatewaySettings
    #: The official schemas.
    schemas: Schemas
    #: Set when something was queued.
    queued: asyncio.Event = field(default_factory=asyncio.Event)

    def capabilities(self) -> Capabilities:
        """The bank's hold is guaranteed until it ends."""
        return Capabilities(
            leg_kinds=("credit_transfer",),
            promise_kind=PromiseKind.GUARANTEED,
            promise_max=self.settings.hold_max,
            assets=tuple(AssetCapability(currency, known_scale(currency) or 0) for currency in self.settings.currencies),
            venues=(self.settings.bank_bic,),
        )

    async def begin(self, tx: Connection, work: Sequence[LegWork], now: datetime) -> Sequence[Completion]:
        """Build what is to be said to the bank, keep it, queue it."""
        completions: list[Completion] = []
        for each in work:
            match each.phase:
                case Phase.PREPARING:
                    refusal = self._refuses(each, now)
                    if refusal is None:
                        await self._pay(tx, each, now)
                    else:
                        completions.append(Completion(each.plan_id, each.leg_id, Finding.VOTED_NO, refusal=refusal))
                case Phase.COMMITTING:
                    completions.extend(await self._release(tx, each))
                case Phase.ABORTING:
                    await self.cancel(tx, (each.plan_id, each.leg_id), each.revision, now, each.traceparent)
                case Phase.REVERSING:
                    completions.append(Completion(each.plan_id, each.leg_id, Finding.REVERSAL_REFUSED, refusal=STAYS_PAID))
                case _:
                    raise AssertionError(f"nothing is begun in {each.phase}")
        return completions

    def wake(self) -> None:
        """Send what was queued."""
        self.queued.set()

    def _refuses(self, work: LegWork, now: datetime) -> Refusal | None:
        """Why the bank need not even be asked."""
        terms = credit_terms(work.binding)
        if terms.debtor.agent_bic != self.settings.bank_bic:
            return Refusal("BANK_PREPARE_FAILED", "RC03", f"this gateway speaks to {self.settings.bank_bic} only")
        if terms.amount.asset not in self.settings.currencies:
            return Refusal("BANK_PREPARE_FAILED", "AM11", f"{terms.amount.asset} is not agreed with the bank")
        if work.hold_until is None or work.hold_until > now + self.settings.hold_max:
            return Refusal("BANK_PREPARE_FAILED", "CH03", "the promise would have to stand longer than the bank holds money")
        return None

    async def _pay(self, tx: Connection, work: LegWork, now: datetime) -> None:
        names = references(work.plan_id, work.leg_id)
        await store.insert_payment(tx, work.plan_id, work.leg_id, names, now)
        envelope = self._envelope(names.message_id, now)
        octets = writer.payment(envelope, payment_of(work, now), self.schemas)
        await self._send(tx, (work.plan_id, work.leg_id), Kind.PAYMENT, envelope, names.uetr, octets, work.traceparent)

    async def _release(self, tx: Connection, work: LegWork) -> Sequence[Completion]:
        """Show the key. A payment that settled already, before a restore, is found settled."""
        names = references(work.plan_id, work.leg_id)
        await store.insert_payment(tx, work.plan_id, work.leg_id, names, work.since)
        found = await store.payment(tx, work.plan_id, work.leg_id)
        if found is not None and found[0].settled:
            evidence = evidence_of(found[0], work.plan_id, work.leg_id, self.settings.bank_bic)
            return [Completion(work.plan_id, work.leg_id, Finding.EXECUTED, evidence=evidence)]
        key = f"{names.instruction_id}-release"
        await store.enqueue(tx, (work.plan_id, work.leg_id), names.uetr, "RELEASE", key, work.key, work.traceparent)
        return []

    async def release_again(self, tx: Connection, leg: tuple[PlanId, LegId], number: int) -> bool:
        """Show the key once more, to a bank that may have forgotten that it was shown; False where it may not be shown now."""
        key = await store.key_of_executing(tx, *leg)
        if key is None:
            return False
        names = references(*leg)
        return await store.enqueue(tx, leg, names.uetr, "RELEASE", f"{names.instruction_id}-release-{number}", key, None)

    async def cancel(
        self, tx: Connection, leg: tuple[PlanId, LegId], number: int, now: datetime, traceparent: str | None = None
    ) -> None:
        """Ask the bank to cancel; it answers for payments that it never saw too, and bars them. `number` tells one request from the next."""
        names = references(*leg)
        await store.insert_payment(tx, *leg, names, now)
        envelope = self._envelope(message_id(Kind.CANCELLATION, *leg, number), now)
        octets = writer.cancellation(envelope, names, CANCELLATION_REASON, self.schemas)
        await self._send(tx, leg, Kind.CANCELLATION, envelope, names.uetr, octets, traceparent)

    async def inquire(self, tx: Connection, leg: tuple[PlanId, LegId], number: int, now: datetime) -> None:
        """Ask the bank what became of a payment; `number` tells one question from the next."""
        names = references(*leg)
        envelope = self._envelope(message_id(Kind.INQUIRY, *leg, number), now)
        octets = writer.inquiry(envelope, names, self.schemas)
        await self._send(tx, leg, Kind.INQUIRY, envelope, names.uetr, octets, None)

    async def _send(
        self,
        tx: Connection,
        leg: tuple[PlanId, LegId],
        kind: Kind,
        envelope: Envelope,
        uetr: str,
        octets: bytes,
        traceparent: str | None,
    ) -> None:
        if await store.enqueue(tx, leg, uetr, "SEND", envelope.message_id, octets, traceparent):
            await store.keep_message(tx, "OUT", envelope.message_id, kind.value, uetr, octets)

    def _envelope(self, name: str, now: datetime) -> Envelope:
        return Envelope(self.settings.own_bic, self.settings.bank_bic, name, now)
