"""A gateway before the real bank whose leg issues an undertaking."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, ClassVar, Final

from real_bank import BANK_BIC, RICH, Bank, Gateway, outcome_of

from bank_gateway.settings import InstrumentSettings
from lockstep_kit.convert import certificate_to_pb
from lockstep_kit.fence import Phase
from lockstep_kit.ids import LegId, uetr
from lockstep_kit.participant import convert
from lockstep_kit.participant.records import Answer, LegRecord
from lockstep_kit.plan import Journal, Notarisation
from lockstep_kit.statements import InstrumentEvidence
from lockstep_testkit import commands, factories
from lockstep_testkit.factories import CHAIN, PlanCase, address_of, leg_of, plan_of

LEG: Final = "guarantee"
#: As the gateway's certificate names it.
AGREED: Final = InstrumentSettings(drafts_held=True)


def guarantee(minor_units: int = 50_000_00, *, expiry_date: date | None = None, account: str = RICH, **changes: Any) -> PlanCase:
    """A plan in which the bank issues a standby letter of credit, when the tokens are delivered."""
    here = {"issuing_bic": BANK_BIC, "applicant_account": account} | changes
    terms = replace(factories.instrument_terms(minor_units, expiry_date=expiry_date), **here)
    legs = [
        leg_of("tokens", factories.token_terms()),
        leg_of(LEG, terms),
        leg_of("notarisation", Notarisation(CHAIN, address_of("registry"))),
        leg_of("journal", Journal()),
    ]
    return plan_of(legs)


def uetr_of(plan: PlanCase) -> str:
    return uetr(plan.plan_id, LegId(LEG))


@dataclass
class TradeGateway(Gateway):
    """A gateway that is agreed with the bank to have undertakings issued."""

    leg_id: ClassVar[str] = LEG
    changes: dict[str, Any] = field(default_factory=lambda: {"instruments": AGREED})

    async def commit(self, plan: PlanCase, voted: LegRecord | None = None, **terms: Any) -> Answer:
        """Commit, with the leg's own vote, or the one that another gateway gave before its database was put back."""
        signed = convert.stored_vote(voted or await self.record(plan))
        assert signed is not None
        # The draft has no end, so the decision is written at once.
        certificate = plan.certificate(signed)
        item = convert.read_commit(commands.commit(plan, LEG, certificate, **terms), certificate, certificate_to_pb(certificate))
        return (await self.engine.execute(item.command, [item], 0))[0]

    async def lodged(self, plan: PlanCase) -> None:
        """Prepare, until the bank holds the draft and the leg has voted YES."""
        await self.held(plan)

    async def issued(self, plan: PlanCase) -> LegRecord:
        """Prepare and commit, until the bank has issued the undertaking."""
        await self.lodged(plan)
        await self.commit(plan)
        return await self.reaches(plan, Phase.COMMITTED)

    async def messages(self, plan: PlanCase, direction: str) -> list[str]:
        """Kinds of the messages that the gateway kept, oldest first."""
        rows = await self.rows(
            "select kind from bank_message where direction = $1 and uetr = $2 order by id", direction, uetr_of(plan)
        )
        return [row["kind"][:8] for row in rows]


async def undertaking(bank: Bank, plan: PlanCase) -> dict[str, Any] | None:
    """The undertaking as the bank has it."""
    found = (await bank.get("/undertakings", uetr=uetr_of(plan)))["undertakings"]
    return found[0] if found else None


async def state(bank: Bank, plan: PlanCase) -> str | None:
    found = await undertaking(bank, plan)
    return None if found is None else str(found["state"])


async def received(bank: Bank, plan: PlanCase) -> list[dict[str, Any]]:
    """What the bank received about an undertaking, oldest first."""
    found: list[dict[str, Any]] = (await bank.get("/messages", uetr=uetr_of(plan)))["received"]
    return found[::-1]


def kinds(messages: list[dict[str, Any]]) -> list[str]:
    return [str(message["kind"])[:8] for message in messages]


def shown(record: LegRecord) -> InstrumentEvidence:
    """The evidence of a leg's outcome."""
    evidence = outcome_of(record).evidence
    assert isinstance(evidence, InstrumentEvidence)
    return evidence
