"""What must hold of the bank-gateway's ledger: the money of each leg stands where its phase says, and every entry, link and balance is right."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

from bank_gateway.ledger import rules
from bank_gateway.ledger.chain import Account, Audit, Head, PostedEntry
from bank_gateway.ledger.rules import Entry, EntryKind
from bank_gateway.operations import Known
from bank_gateway.profiles import PROFILES, ProfileName
from lockstep_kit.fence import Phase
from lockstep_kit.ids import LegId, PlanId, uetr
from lockstep_testkit.simulation.memory import Key, Row

TABLES = ("participant_leg", "bank_payment", "ledger_entry")


def written(writes: Mapping[str, Mapping[Key, Row | None]], before: Mapping[str, Mapping[Key, Row]]) -> Iterator[str]:
    """What a transaction of the gateway leaves of the legs that it writes and that its ledger does not show."""
    if not any(writes.get(table) for table in TABLES):
        return
    legs, payments, entries = ({**before[table], **writes.get(table, {})} for table in TABLES)
    keys = {**writes.get("participant_leg", {}), **writes.get("bank_payment", {})}
    touched = {key: uetr(PlanId(key[0]), LegId(key[1])) for key in keys}
    histories = _histories(entries.values(), touched.values())
    for key, name in touched.items():
        leg, payment = legs.get(key), payments.get(key)
        if leg is not None and leg["phase"] is not None and payment is not None:
            yield from _misplaced(leg, payment, histories[name])


def _misplaced(leg: Row, payment: Row, history: list[Entry]) -> Iterator[str]:
    known, now, phase = Known(**json.loads(payment["status"])), rules.standing(history), Phase(leg["phase"])
    if not rules.in_place(now, phase, known, PROFILES[ProfileName(payment["profile"])].footing):
        yield f"I2: the ledger has {now.place or 'nothing'} of leg {leg['leg_id']} of plan {leg['plan_id']}, which is {phase}"


def kept(tables: Mapping[str, Mapping[Key, Row]]) -> Iterator[str]:
    """What is wrong with the ledger itself at the end."""
    heads = {row["ledger"]: Head(row["sequence"], row["hash"]) for row in tables["ledger_head"].values()}
    for ledger, head in heads.items():
        audit = Audit(ledger)
        rows = sorted((row for row in tables["ledger_entry"].values() if row["ledger"] == ledger), key=lambda row: row["sequence"])
        accounts = {
            row["account"]: Account(row["balance"], row["credit_limit"])
            for row in tables["ledger_account"].values()
            if row["ledger"] == ledger
        }
        for sentence in (*audit.read(_posted(row) for row in rows), *audit.close(head, accounts)):
            yield f"I2: {sentence}"


def _posted(row: Row) -> PostedEntry:
    return PostedEntry(row["sequence"], _entry(row), row["recorded_at"], row["previous"], row["content"], row["hash"])


def _entry(row: Row) -> Entry:
    kind = EntryKind(row["kind"])
    return Entry(row["ledger"], row["reference"], kind, row["uetr"], row["debit"], row["credit"], row["amount"])


def _histories(rows: Iterable[Row | None], names: Iterable[str]) -> dict[str, list[Entry]]:
    found: dict[str, list[tuple[int, Entry]]] = {name: [] for name in names}
    for row in rows:
        if row is not None and row["uetr"] in found:
            found[row["uetr"]].append((row["sequence"], _entry(row)))
    return {name: [entry for _, entry in sorted(numbered, key=lambda each: each[0])] for name, numbered in found.items()}
