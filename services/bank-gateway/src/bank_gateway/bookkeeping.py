"""What the legs post into the ledger, in the transactions that move them. Holds no rules."""

from __future__ import annotations

from collections.abc import Sequence

from bank_gateway.ledger import rules, store
from bank_gateway.ledger.rules import Entry, LedgerLeg
from bank_gateway.messages import AnyStatement, Booking, Footing
from bank_gateway.operations import Heard
from bank_gateway.payments import credit_terms
from bank_gateway.references import references
from lockstep_kit.certificate import Binding
from lockstep_kit.db import Connection
from lockstep_kit.fence import Phase
from lockstep_kit.participant.ports import LegWork


def ledger_leg(binding: Binding, footing: Footing = Footing.CONDITIONAL) -> LedgerLeg:
    """A leg as the ledger sees it."""
    terms = credit_terms(binding)
    ledger = rules.ledger_of(terms.debtor.agent_bic, terms.amount.asset)
    name = references(binding.header.plan_id, binding.leg.leg_id).uetr
    return LedgerLeg(ledger, terms.debtor.iban, name, terms.amount.minor_units, footing)


async def denied(tx: Connection, work: Sequence[LegWork]) -> set[str]:
    """UETRs of the legs that their debtors' limits do not allow to be instructed; what the others draw is kept free until the transaction ends."""
    drawn = {entry.reference: entry for entry in (rules.instructed(ledger_leg(each.binding)) for each in work)}
    return {drawn[reference].uetr for reference in await store.denied(tx, list(drawn.values()))}


async def begun(tx: Connection, work: Sequence[tuple[LegWork, Footing]]) -> None:
    """Post what begins: legs that are prepared, and legs that are executed. The last statement of its transaction's own."""
    executed = (ledger_leg(each.binding, footing) for each, footing in work if each.phase is Phase.COMMITTING)
    legs = {leg.uetr: leg for leg in executed}
    histories = await store.histories(tx, list(legs))
    entries = [rules.instructed(ledger_leg(each.binding, footing)) for each, footing in work if each.phase is Phase.PREPARING]
    executing = (rules.executing(leg, rules.standing(histories[name])) for name, leg in legs.items())
    await store.post(tx, [*entries, *(entry for entry in executing if entry is not None)])


class Hearing:
    """What the words of one delivery post: gathered as they are heard, and posted together at the end."""

    def __init__(self, histories: dict[str, list[Entry]]) -> None:
        """With what is posted of some payments already."""
        #: Entries about each payment, those that are noted included.
        self.histories = histories
        #: What is noted, and not posted yet.
        self.noted: list[Entry] = []

    @classmethod
    async def of(cls, tx: Connection, uetrs: Sequence[str]) -> Hearing:
        """With what is posted of some payments already."""
        return cls(await store.histories(tx, uetrs))

    def heard(self, work: LegWork, footing: Footing, statement: AnyStatement, heard: Heard) -> None:
        """Note what a statement about a leg posts. Money that comes back does so when it is booked, and not when that is told."""
        leg = ledger_leg(work.binding, footing)
        now = rules.standing(self.histories[leg.uetr])
        if isinstance(statement, Booking) and (statement.reversal or statement.returned):
            self._note(leg, self._returned(leg, statement, now))
        else:
            self._note(leg, rules.heard(leg, now, heard.known, heard.meaning))
        if isinstance(statement, Booking) and not heard.misfit:
            self._charges(leg, statement)

    def turned_down(self, work: LegWork) -> None:
        """Note what it posts that the bank does not take a payment."""
        leg = ledger_leg(work.binding)
        self._note(leg, rules.given_up(leg, rules.standing(self.histories[leg.uetr])))

    async def post(self, tx: Connection) -> None:
        """Post what was noted. The last statement of its transaction's own."""
        await store.post(tx, self.noted)

    @staticmethod
    def _returned(leg: LedgerLeg, said: Booking, now: rules.Standing) -> Entry | None:
        ours = said.account == leg.debtor and not said.debit and said.status == "BOOK"
        if not ours or rules.ledger_of(leg.ledger.partition("/")[0], said.amount.asset) != leg.ledger:
            return None
        return rules.returned(leg, now, said.amount.minor_units, said.reference)

    def _charges(self, leg: LedgerLeg, said: Booking) -> None:
        if said.account == leg.debtor and said.debit and said.status == "BOOK":
            for charge in said.charges:
                now = rules.standing(self.histories[leg.uetr])
                self._note(leg, rules.charged(leg, now, charge.asset, charge.minor_units, said.reference))

    def _note(self, leg: LedgerLeg, entry: Entry | None) -> None:
        if entry is not None:
            self.noted.append(entry)
            self.histories[leg.uetr].append(entry)
