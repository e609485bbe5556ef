"""Twins of the statements of the bank-gateway's ledger, with what its database itself sees to; the ledger's own rules and hashes are the pure ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import asyncpg

from bank_gateway.ledger import store
from bank_gateway.ledger.chain import GENESIS, NEVER_NEGATIVE, content_of, link
from bank_gateway.ledger.rules import AccountKind, Entry, EntryKind, kind_of
from lockstep_testkit.simulation.memory import Registry, Row, Rows, Statement, violation
from lockstep_testkit.simulation.specs import Triggers

STATEMENTS: Final = Registry()


def _stays(_: Statement, before: Row | None, after: Row) -> None:
    """The trigger `ledger_entry_stays`."""
    del after
    if before is not None:
        raise violation(asyncpg.IntegrityConstraintViolationError, "ledger_stays", "what is posted is kept as it is")


def _drawn(_: Statement, before: Row | None, after: Row) -> None:
    """The constraint `ledger_account_sign`, and the trigger `ledger_account_moves`."""
    kind, balance, limit = AccountKind(after["kind"]), after["balance"], after["credit_limit"]
    if (kind in NEVER_NEGATIVE and balance < 0) or (kind is AccountKind.SUSPENSE and balance > 0):
        raise violation(asyncpg.CheckViolationError, "ledger_account_sign", f"{after['account']} stands at {balance}")
    if before is not None and limit is not None and balance < before["balance"] and balance < -limit:
        raise violation(asyncpg.CheckViolationError, "ledger_account_limit", "a line is drawn to its limit, and no further")


TRIGGERS: Final = {"ledger_entry": Triggers(_stays), "ledger_account": Triggers(_drawn)}


async def _opened(s: Statement, names: Iterable[tuple[str, str]]) -> None:
    """Accounts opened or locked, lines first."""
    for ledger, account in sorted(names, key=lambda name: (kind_of(name[1]) is not AccountKind.LINE, *name)):
        await s.insert_new("ledger_account", {"ledger": ledger, "account": account, "kind": kind_of(account).value, "balance": 0})


def _move(s: Statement, ledger: str, account: str, amount: int) -> None:
    row = s.get("ledger_account", ledger, account) or {}
    s.update("ledger_account", row, balance=row["balance"] + amount)


@STATEMENTS.on(store.POST)
async def post(s: Statement, *lists: Sequence[Any]) -> Rows:
    entries = [
        Entry(ledger, reference, EntryKind(kind), uetr, debit, credit, amount)
        for ledger, reference, kind, uetr, debit, credit, amount in zip(*lists, strict=True)
    ]
    await _opened(s, {(each.ledger, name) for each in entries for name in (each.debit, each.credit)})
    for ledger in sorted({each.ledger for each in entries}):
        await s.insert_new("ledger_head", {"ledger": ledger, "sequence": 0, "hash": GENESIS})
    now = s.now
    found = []
    moved: dict[tuple[str, str], int] = {}
    known = {(row["ledger"], row["reference"]): row for row in s.all("ledger_entry")}
    for place, each in enumerate(entries, 1):
        content = content_of(each)
        row = known.get((each.ledger, each.reference))
        if row is None:
            head = s.get("ledger_head", each.ledger) or {}
            sequence, previous = head["sequence"] + 1, head["hash"]
            row = {
                "ledger": each.ledger, "sequence": sequence, "reference": each.reference, "kind": each.kind.value, "uetr": each.uetr,
                "debit": each.debit, "credit": each.credit, "amount": each.amount, "recorded_at": now, "previous": previous,
                "content": content, "hash": link(previous, sequence, now, content),
            }  # fmt: skip
            known[each.ledger, each.reference] = await s.insert("ledger_entry", row)
            s.update("ledger_head", head, sequence=sequence, hash=row["hash"])
            for account, amount in ((each.debit, -each.amount), (each.credit, each.amount)):
                moved[each.ledger, account] = moved.get((each.ledger, account), 0) + amount
            found.append({"place": place, "sequence": sequence, "posted": True})
        elif row["content"] == content:
            found.append({"place": place, "sequence": row["sequence"], "posted": False})
        else:
            raise violation(asyncpg.UniqueViolationError, "ledger_entry_reference", f"{each.reference} is that of another entry")
    for name, amount in moved.items():
        _move(s, *name, amount)
    return found


@STATEMENTS.on(store.DENIED)
async def denied(s: Statement, ledgers: Sequence[str], accounts: Sequence[str], amounts: Sequence[int]) -> Rows:
    limited = {
        name
        for name in zip(ledgers, accounts, strict=True)
        if (s.get("ledger_account", *name) or {}).get("credit_limit") is not None
    }
    free = {}
    for name in sorted(limited):
        row = await s.lock("ledger_account", *name) or {}
        free[name] = row["balance"] + row["credit_limit"]
    found = []
    for place, (*named, amount) in enumerate(zip(ledgers, accounts, amounts, strict=True), 1):
        name = named[0], named[1]
        if name in free and amount > free[name]:
            found.append({"place": place})
        elif name in free:
            free[name] -= amount
    return found


@STATEMENTS.on(store.OF_PAYMENTS)
def of_payments(s: Statement, uetrs: Sequence[str]) -> Rows:
    wanted = set(uetrs)
    named = ("ledger", "reference", "kind", "uetr", "debit", "credit", "amount")
    found = sorted(
        (row for row in s.all("ledger_entry") if row["uetr"] in wanted), key=lambda row: (row["ledger"], row["sequence"])
    )
    return [{name: row[name] for name in named} for row in found]
