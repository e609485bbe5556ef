"""What must hold between the bank-gateway's rows and the bank's own book: no finding that the book does not show, and no person called for nothing.

A bank that said what its book does not show is excused where its words were believed or called a person; nothing else is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from lockstep_kit.ids import LegId, PlanId, uetr
from lockstep_testkit.simulation import ledger_checking
from lockstep_testkit.simulation.bank_book import Standing
from lockstep_testkit.simulation.bank_desk import ANOTHER_AMOUNT, ANOTHER_UETR, STRANGER
from lockstep_testkit.simulation.bank_party import BankParty
from lockstep_testkit.simulation.memory import Key, Row

#: In which standings of its payment a leg may enter a phase.
SHOWN: Final[Mapping[str, frozenset[Standing]]] = {
    "REFUSED": frozenset(Standing) - {Standing.HELD, Standing.BOOKED},
    "COMMITTED": frozenset({Standing.BOOKED}),
    "RELEASED": frozenset({Standing.REJECTED, Standing.CANCELLED, Standing.BARRED}),
}
#: Phases in which the gateway owes an answer, so that a request that was turned away matters.
OWING: Final = ("PREPARING", "COMMITTING", "ABORTING")
#: What a bank says of a payment that it does not hold.
GONE: Final = frozenset({"RJCT", "CNCL", "RJCR NOOR"})
#: Statuses of a payment that is settled.
SETTLED: Final = ("ACSC", "ACCC")
_DAMAGED: Final = "must be that of the delivery"


def contradicted(bank: BankParty, plan_id: str, leg_id: str) -> bool:
    """Whether the bank said of a leg's payment what its book did not show."""
    return uetr(PlanId(plan_id), LegId(leg_id)) in bank.desk.contradicted


def excused(bank: BankParty, tables: Mapping[str, Mapping[Key, Row]], plan_id: str, leg_id: str) -> bool:
    """Whether money may still be held for a plan that is closed, until its time is over.

    The bank said that it holds nothing; or what it said came to a gateway whose database had been put back, and is an open matter.
    """
    name = uetr(PlanId(plan_id), LegId(leg_id))
    said = bank.desk.contradicted.get(name, [])
    lied = any(standing is Standing.HELD and words in GONE for standing, words in said)
    return lied or any(row["uetr"] == name for row in _open(tables["bank_matter"].values()))


def written(
    bank: BankParty, writes: Mapping[str, Mapping[Key, Row | None]], before: Mapping[str, Mapping[Key, Row]], *, restored: bool
) -> Iterator[str]:
    """What a transaction of the gateway says that the bank's book does not show at that moment, or its own ledger."""
    yield from ledger_checking.written(writes, before)
    for key, row in writes.get("participant_leg", {}).items():
        if row is None:
            continue
        yield from _heard(
            row, before["participant_leg"].get(key), writes.get("bank_payment", {}).get(key), before["bank_payment"].get(key)
        )
        if contradicted(bank, row["plan_id"], row["leg_id"]):
            continue
        name = uetr(PlanId(row["plan_id"]), LegId(row["leg_id"]))
        old: Mapping[str, Any] = before["participant_leg"].get(key) or {"phase": None, "trouble": ""}
        standing, payment = bank.book.standing(name), bank.book.payments.get(name)
        shown = standing in SHOWN.get(row["phase"], frozenset(Standing))
        if row["phase"] == "PREPARED":
            shown = payment is not None and payment.was_held
        if (
            row["phase"] == "REFUSED"
            and restored
            and key not in writes.get("bank_payment", {})
            and key not in before["bank_payment"]
        ):
            # It did not even ask, and cannot know that it had asked before its database was put back.
            shown = True
        if row["phase"] != old["phase"] and not shown:
            yield f"I8: leg {row['leg_id']} of plan {row['plan_id']} is {row['phase']}, and its payment is {standing}"
        slighted = name in bank.desk.slighted and row["phase"] in OWING
        if row["trouble"] not in ("", old["trouble"]) and not slighted and not restored:
            yield f"I8: a person is called about leg {row['leg_id']} of plan {row['plan_id']} for nothing: {row['trouble']}"


def _heard(row: Row, old: Row | None, payment: Row | None, payment_before: Row | None) -> Iterator[str]:
    """What the gateway concludes from what it has heard, whether or not that is true."""
    if old is not None and old["phase"] == row["phase"]:
        return
    known, known_before = (
        json.loads(each["status"]) if each is not None else {} for each in (payment or payment_before, payment_before)
    )
    if row["phase"] == "COMMITTED" and not (known.get("status") in SETTLED and known.get("booking_reference")):
        yield f"I8: leg {row['leg_id']} of plan {row['plan_id']} is executed without status and booking: {known}"
    moved = known_before.get("status") in SETTLED or known_before.get("booking_reference")
    if row["phase"] == "RELEASED" and moved:
        yield f"I8: leg {row['leg_id']} of plan {row['plan_id']} is released after the bank had said that money moved: {known_before}"


def kept(bank: BankParty, tables: Mapping[str, Mapping[Key, Row]], *, restored: bool) -> Iterator[str]:
    """What the gateway keeps at the end and has no reason to."""
    yield from ledger_checking.kept(tables)
    for row in tables["bank_quarantine"].values():
        if not row["rule"].startswith(_DAMAGED):
            yield f"I8: delivery {row['cursor']} is kept in the quarantine: {row['field']} {row['rule']}"
    read = max((each["cursor"] for each in tables["bank_mailbox"].values()), default=0)
    if read == len(bank.desk.mailbox.items) and not bank.desk.on_its_way:
        told = {row["uetr"] for row in tables["bank_matter"].values()}
        for name, lies in bank.desk.contradicted.items():
            for words, named in ((ANOTHER_AMOUNT, name), (ANOTHER_UETR, STRANGER)):
                if any(said == words for _, said in lies) and named not in told:
                    yield f"I8: the bank booked {words} for the payment {name}, and that is no open matter"
    said = {words for each in bank.desk.contradicted.values() for _, words in each}
    for row in _open(tables["bank_matter"].values()):
        if not said and not restored:
            yield f"I8: a matter is open, and the bank never contradicted its book: {row['sentence']}"


def _open(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row["closed_at"] is None]
