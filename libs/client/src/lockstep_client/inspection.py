"""A validator's inspection of plans: reads the outside world through its own readers and hands what it read to the pure comparisons.

What plans that wait together have in common (a transaction, a block, whose an account is) is read once; each plan is compared by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self, TypeAlias

from lockstep_client.bank_evidence import Entry as BankEntry
from lockstep_client.bank_evidence import check_bank_leg
from lockstep_client.bank_reader import BankReader
from lockstep_client.chain_evidence import ChainFacts, check_chain_leg
from lockstep_client.chain_reader import ChainReader, LegAsked
from lockstep_client.configuration import ClientConfiguration
from lockstep_client.convert import LegView, PlanView, entry_from_pb
from lockstep_client.evidence import Finding, check_journal, check_plan
from lockstep_client.instrument_evidence import UndertakingFact, check_instrument_leg
from lockstep_client.journal_chain import Entry, verify_chain
from lockstep_client.readers import JournalClient
from lockstep_client.reading import ReadingFailed
from lockstep_kit import ids
from lockstep_kit.errors import LockstepError
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.plan import LegKind
from lockstep_kit.registry import Registry
from lockstep_kit.registry_file import load_registry
from lockstep_kit.statements import BankEvidence, ChainEvidence, InstrumentEvidence
from lockstep_kit.values import dataclass

#: A leg of a plan among others.
_LegKey: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Outside:
    """What was read of some plans; in the place of what could not be read stands why."""

    #: By leg.
    chain: Mapping[_LegKey, ChainFacts | ReadingFailed]
    #: By UETR.
    bank: Mapping[str, tuple[BankEntry, ...] | ReadingFailed]
    #: By UETR.
    undertakings: Mapping[str, UndertakingFact | ReadingFailed | None]
    #: By plan.
    journal: Mapping[str, list[Entry] | Finding]


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

    async def inspect(self, views: Sequence[PlanView]) -> list[list[Finding]]:
        """Of each plan everything that keeps it from being validated, in their order; empty when nothing does."""
        legs = [(view, each) for view in views for each in view.legs]
        chain, bank, undertakings, journal = await asyncio.gather(
            self._read_chain(legs), self._read_bank(legs), self._read_undertakings(legs), self._read_journal(views)
        )
        outside, found = _Outside(chain, bank, undertakings, journal), []
        for view in views:
            found.append(self._findings(view, outside))
            # Signatures take some milliseconds of each plan: whatever else the process does goes on in between.
            await asyncio.sleep(0)
        return found

    def _findings(self, view: PlanView, outside: _Outside) -> list[Finding]:
        found = check_plan(view, self.registry)
        for each in view.legs:
            match each.leg.kind:
                case LegKind.TOKEN_TRANSFER:
                    found.extend(self._chain_leg(each, view, outside))
                case LegKind.CREDIT_TRANSFER:
                    found.extend(self._bank_leg(each, view, outside))
                case LegKind.ISSUE_INSTRUMENT:
                    found.extend(self._instrument_leg(each, view, outside))
                case _:
                    pass
        chain = outside.journal[view.header.plan_id]
        if isinstance(chain, Finding):
            return [*found, chain]
        verdict = verify_chain(chain, view.header.plan_id, self.registry)
        return [*found, *check_journal(verdict, view, complete_to=view.journal_sequence)]

    def _chain_leg(self, each: LegView, view: PlanView, outside: _Outside) -> list[Finding]:
        if self._chain is None:
            return [Finding("CHAIN_READER_MISSING", each.leg.leg_id, "no node is configured to check the leg with (chain_rpc_url)")]
        if not isinstance(each.evidence, ChainEvidence):
            return [Finding("CHAIN_EVIDENCE_MISSING", each.leg.leg_id, "the outcome names no entry on chain")]
        facts = outside.chain[view.header.plan_id, each.leg.leg_id]
        if isinstance(facts, ReadingFailed):
            return [Finding("CHAIN_UNREADABLE", each.leg.leg_id, facts.message, may_pass=True)]
        return check_chain_leg(each, view.header, facts)

    def _bank_leg(self, each: LegView, view: PlanView, outside: _Outside) -> list[Finding]:
        if self._bank is None:
            return [Finding("BANK_READER_MISSING", each.leg.leg_id, "no view of the bank's book is configured (bank_reader)")]
        if not isinstance(each.evidence, BankEvidence):
            return [Finding("BANK_EVIDENCE_MISSING", each.leg.leg_id, "the outcome names no payment")]
        entries = outside.bank[_uetr(view, each)]
        if isinstance(entries, ReadingFailed):
            return [Finding("BANK_UNREADABLE", each.leg.leg_id, entries.message, may_pass=True)]
        return check_bank_leg(each, view.header, entries)

    def _instrument_leg(self, each: LegView, view: PlanView, outside: _Outside) -> list[Finding]:
        if self._bank is None:
            return [Finding("BANK_READER_MISSING", each.leg.leg_id, "no view of the bank's book is configured (bank_reader)")]
        if not isinstance(each.evidence, InstrumentEvidence):
            return [Finding("BANK_EVIDENCE_MISSING", each.leg.leg_id, "the outcome names no undertaking")]
        fact = outside.undertakings[_uetr(view, each)]
        if isinstance(fact, ReadingFailed):
            return [Finding("BANK_UNREADABLE", each.leg.leg_id, fact.message, may_pass=True)]
        return check_instrument_leg(each, view.header, fact)

    async def _read_chain(self, legs: Sequence[tuple[PlanView, LegView]]) -> dict[_LegKey, ChainFacts | ReadingFailed]:
        asked = {
            (view.header.plan_id, each.leg.leg_id): LegAsked(each.leg, view.header, each.evidence)
            for view, each in legs
            if each.leg.kind is LegKind.TOKEN_TRANSFER and isinstance(each.evidence, ChainEvidence)
        }
        if self._chain is None or not asked:
            return {}
        return dict(zip(asked, await self._chain.facts(list(asked.values())), strict=True))

    async def _read_bank(self, legs: Sequence[tuple[PlanView, LegView]]) -> Mapping[str, tuple[BankEntry, ...] | ReadingFailed]:
        asked = [
            _uetr(view, each)
            for view, each in legs
            if each.leg.kind is LegKind.CREDIT_TRANSFER and isinstance(each.evidence, BankEvidence)
        ]
        if self._bank is None or not asked:
            return {}
        try:
            return await self._bank.entries(asked)
        except ReadingFailed as error:
            return dict.fromkeys(asked, error)

    async def _read_undertakings(
        self, legs: Sequence[tuple[PlanView, LegView]]
    ) -> dict[str, UndertakingFact | ReadingFailed | None]:
        found: dict[str, UndertakingFact | ReadingFailed | None] = {}
        for view, each in legs:
            if (
                self._bank is not None
                and each.leg.kind is LegKind.ISSUE_INSTRUMENT
                and isinstance(each.evidence, InstrumentEvidence)
            ):
                uetr = _uetr(view, each)
                try:
                    found[uetr] = await self._bank.undertaking(uetr)
                except ReadingFailed as error:
                    found[uetr] = error
        return found

    async def _read_journal(self, views: Sequence[PlanView]) -> dict[str, list[Entry] | Finding]:
        found: dict[str, list[Entry] | Finding] = {view.header.plan_id: [] for view in views}
        try:
            async for message in self._journal.list_chains(list(found)):
                chain = found.get(message.plan_id)
                if isinstance(chain, list):
                    try:
                        chain.append(entry_from_pb(message))
                    except FieldInvalid as error:
                        found[message.plan_id] = Finding("JOURNAL_MALFORMED", "", str(error))
        except LockstepError as error:
            unreachable = Finding("JOURNAL_UNREACHABLE", "", f"the journal cannot be read: {error}", may_pass=True)
            return dict.fromkeys(found, unreachable)
        return found


def _uetr(view: PlanView, each: LegView) -> str:
    return ids.uetr(view.header.plan_id, each.leg.leg_id)
