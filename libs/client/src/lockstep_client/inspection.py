"""A validator's inspection of one plan: reads the outside world through its own readers and hands what it read to the pure comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from lockstep_client.bank_evidence import check_bank_leg
from lockstep_client.bank_reader import BankReader
from lockstep_client.chain_evidence import check_chain_leg
from lockstep_client.chain_reader import ChainReader
from lockstep_client.configuration import ClientConfiguration
from lockstep_client.convert import LegView, PlanView, entry_from_pb
from lockstep_client.evidence import Finding, check_journal, check_plan
from lockstep_client.instrument_evidence import check_instrument_leg
from lockstep_client.journal_chain import verify_chain
from lockstep_client.readers import JournalClient
from lockstep_client.reading import ReadingFailed
from lockstep_kit import ids
from lockstep_kit.errors import LockstepError
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.plan import LegKind
from lockstep_kit.registry import Registry
from lockstep_kit.registry_file import load_registry
from lockstep_kit.statements import BankEvidence, ChainEvidence, Evidence, InstrumentEvidence


class Inspector:
    """Checks plans with the validator's own registry, node, view of the bank's book, and journal. An async context manager."""

    def __init__(self, registry: Registry, journal: JournalClient, chain: ChainReader | None, bank: BankReader | None) -> None:
        self.registry = registry
        self._journal = journal
        self._chain = chain
        self._bank = bank
        self._stack = AsyncExitStack()

    @classmethod
    def configured(cls, configuration: ClientConfiguration) -> Inspector:
        """The inspector that a configuration describes. Call it inside a running event loop."""
        return cls(
            registry=load_registry(configuration.registry_file),
            journal=JournalClient(configuration.journal, configuration.tls),
            chain=ChainReader(configuration.chain_rpc_url) if configuration.chain_rpc_url else None,
            bank=BankReader(configuration.bank_reader.url, configuration.bank_reader.token_file)
            if configuration.bank_reader
            else None,
        )

    async def __aenter__(self) -> Self:
        for each in (self._journal, self._chain, self._bank):
            if each is not None:
                await self._stack.enter_async_context(each)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._stack.aclose()

    async def inspect(self, view: PlanView) -> Sequence[Finding]:
        """Everything that does not hold about a plan that waits for validation; empty when all does."""
        found = check_plan(view, self.registry)
        for each in view.legs:
            match each.leg.kind, each.evidence:
                case LegKind.TOKEN_TRANSFER, evidence:
                    found.extend(await self._chain_leg(each, view, evidence))
                case LegKind.CREDIT_TRANSFER, evidence:
                    found.extend(await self._bank_leg(each, view, evidence))
                case LegKind.ISSUE_INSTRUMENT, evidence:
                    found.extend(await self._instrument_leg(each, view, evidence))
                case _:
                    pass
        found.extend(await self._journal_of(view))
        return found

    async def _chain_leg(self, each: LegView, view: PlanView, evidence: Evidence | None) -> list[Finding]:
        if self._chain is None:
            return [Finding("CHAIN_READER_MISSING", each.leg.leg_id, "no node is configured to check the leg with (chain_rpc_url)")]
        if not isinstance(evidence, ChainEvidence):
            return [Finding("CHAIN_EVIDENCE_MISSING", each.leg.leg_id, "the outcome names no entry on chain")]
        try:
            return check_chain_leg(each, view.header, await self._chain.facts(each.leg, view.header, evidence))
        except ReadingFailed as error:
            return [Finding("CHAIN_UNREADABLE", each.leg.leg_id, error.message, may_pass=True)]

    async def _bank_leg(self, each: LegView, view: PlanView, evidence: Evidence | None) -> list[Finding]:
        if self._bank is None:
            return [Finding("BANK_READER_MISSING", each.leg.leg_id, "no view of the bank's book is configured (bank_reader)")]
        if not isinstance(evidence, BankEvidence):
            return [Finding("BANK_EVIDENCE_MISSING", each.leg.leg_id, "the outcome names no payment")]
        try:
            return check_bank_leg(each, view.header, await self._bank.entries(ids.uetr(view.header.plan_id, each.leg.leg_id)))
        except ReadingFailed as error:
            return [Finding("BANK_UNREADABLE", each.leg.leg_id, error.message, may_pass=True)]

    async def _instrument_leg(self, each: LegView, view: PlanView, evidence: Evidence | None) -> list[Finding]:
        if self._bank is None:
            return [Finding("BANK_READER_MISSING", each.leg.leg_id, "no view of the bank's book is configured (bank_reader)")]
        if not isinstance(evidence, InstrumentEvidence):
            return [Finding("BANK_EVIDENCE_MISSING", each.leg.leg_id, "the outcome names no undertaking")]
        try:
            found = await self._bank.undertaking(ids.uetr(view.header.plan_id, each.leg.leg_id))
        except ReadingFailed as error:
            return [Finding("BANK_UNREADABLE", each.leg.leg_id, error.message, may_pass=True)]
        return check_instrument_leg(each, view.header, found)

    async def _journal_of(self, view: PlanView) -> list[Finding]:
        try:
            entries = [entry_from_pb(entry) async for entry in self._journal.list_entries(view.header.plan_id)]
        except LockstepError as error:
            return [Finding("JOURNAL_UNREACHABLE", "", f"the journal cannot be read: {error}", may_pass=True)]
        except FieldInvalid as error:
            return [Finding("JOURNAL_MALFORMED", "", str(error))]
        chain = verify_chain(entries, view.header.plan_id, self.registry)
        return check_journal(chain, view, complete_to=view.journal_sequence)
