"""Every SQL statement about undertakings. Each takes the transaction it is part of; order of locks: names, scripts, facilities, mailbox."""

from __future__ import annotations

from datetime import date
from uuid import UUID

import asyncpg

from bank_simulator.database import Connection
from bank_simulator.domain import Account
from bank_simulator.instruments import Application, Facility, Issuance, Undertaking, UndertakingState

_LOCK_FACILITY = """
-- A facility with its account, held until the end of the transaction.
select account_id, accounts.kind, owner_name, currency, status, balance + coalesce(overdraft_limit, 0) as available, limit_minor
from facilities join accounts using (account_id) where account_id = $1 for update of facilities
"""

_USED = """
-- What is lodged and in force of a facility, on a day.
select coalesce(sum(amount), 0)::bigint from undertakings where account_id = $1 and (state = 'LODGED' or state = 'ISSUED' and expires_on >= $2)
"""

_FIND = """
-- An undertaking.
select * from undertakings where uetr = $1
"""

_NUMBER_TAKEN = """
-- Whether another undertaking has a number.
select exists (select from undertakings where number = $1 and uetr <> $2 and state in ('LODGED', 'ISSUED'))
"""

_ADD = """
-- An undertaking that was judged.
insert into undertakings (uetr, counterparty, state, reason, number, account_id, amount, currency, scale, applicant_name, beneficiary_name, advising_bic,
    expires_on, issuance_sha256, content_sha256)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
"""

_ADD_TOMBSTONE = """
-- An undertaking that will never be.
insert into undertakings (uetr, counterparty, state, number) values ($1, $2, 'TOMBSTONED', $3)
"""

_END = """
-- A draft ends.
update undertakings set state = $2, reason = $3 where uetr = $1 and state = 'LODGED'
"""

_ISSUE = """
-- An undertaking is issued, and advised to the bank that advises it.
insert into undertaking_issues (uetr, number, issued_on, advised_to, document) values ($1, $2, $3, $4, $5)
"""

_ISSUED = """
-- An undertaking as it was issued.
select issued_on, document from undertaking_issues where uetr = $1
"""

_SAID = """
-- What was last said about an undertaking.
update undertakings set status_message = $2 where uetr = $1
"""


async def facility(tx: Connection, account: str, today: date) -> Facility | None:
    """A facility, locked; None where the account has none."""
    row = await tx.fetchrow(_LOCK_FACILITY, account)
    if row is None:
        return None
    owner = Account(row["account_id"], row["kind"], row["owner_name"], row["currency"], row["status"], row["available"])
    return Facility(owner, row["limit_minor"], await tx.fetchval(_USED, account, today))


async def find(tx: Connection, uetr: UUID) -> Undertaking | None:
    """An undertaking; None for one that never came."""
    row = await tx.fetchrow(_FIND, uetr)
    return None if row is None else _undertaking(row)


async def number_taken(tx: Connection, number: str, uetr: UUID) -> bool:
    """Whether another undertaking has a number."""
    return bool(await tx.fetchval(_NUMBER_TAKEN, number, uetr))


async def add(tx: Connection, counterparty: str, order: Application, state: UndertakingState, reason: str | None) -> None:
    """Keeps an undertaking that was judged."""
    await tx.execute(
        _ADD, order.uetr, counterparty, state, reason, order.number, order.account, order.amount, order.currency, order.scale,
        order.applicant_name, order.beneficiary_name, order.advising_bic, order.expires_on, order.issuance_sha256, order.content_sha256,
    )  # fmt: skip


async def add_tombstone(tx: Connection, counterparty: str, uetr: UUID, number: str) -> None:
    """An undertaking with this reference will never be taken."""
    await tx.execute(_ADD_TOMBSTONE, uetr, counterparty, number)


async def end(tx: Connection, uetr: UUID, state: UndertakingState, reason: str | None = None) -> None:
    """A draft ends in this state."""
    if await tx.execute(_END, uetr, state, reason) != "UPDATE 1":
        raise AssertionError("the undertaking is locked and was lodged")


async def issue(tx: Connection, undertaking: Undertaking, issuance: Issuance, today: date) -> None:
    """An undertaking is issued, once."""
    await end(tx, undertaking.uetr, UndertakingState.ISSUED)
    await tx.execute(_ISSUE, undertaking.uetr, undertaking.number, today, undertaking.advising_bic, issuance.document)


async def issued(tx: Connection, uetr: UUID) -> tuple[date, bytes]:
    """Day of issue, and the issuance."""
    row = await tx.fetchrow(_ISSUED, uetr)
    if row is None:
        raise AssertionError("what is in the state ISSUED was issued")
    return row["issued_on"], row["document"]


async def remember(tx: Connection, uetr: UUID, message: int) -> None:
    """From now on this is what was last said about an undertaking."""
    await tx.execute(_SAID, uetr, message)


def _undertaking(row: asyncpg.Record) -> Undertaking:
    return Undertaking(
        uetr=row["uetr"], counterparty=row["counterparty"], state=UndertakingState(row["state"]), reason=row["reason"],
        number=row["number"], account=row["account_id"] or "", amount=row["amount"] or 0, currency=row["currency"] or "",
        scale=row["scale"] or 0, advising_bic=row["advising_bic"] or "", expires_on=row["expires_on"],
        issuance_sha256=row["issuance_sha256"], content_sha256=row["content_sha256"], status_message=row["status_message"],
    )  # fmt: skip
