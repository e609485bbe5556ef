"""What is said on chain of escalations: written in the transaction that opens or closes them, on its way to the notary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import asyncpg

from lockstep_kit.db import Connection
from lockstep_kit.escalations import EscalationKind, Said
from lockstep_kit.ids import Digest, PlanId
from lockstep_kit.values import dataclass

#: Keeps what is said. Of an escalation whose opening was not recorded, since it was opened by a version that did not, nothing is.
INSERT: Final = """
insert into escalation_document (escalation_id, kind, plan_id, document, written_at)
select escalation_id, kind, plan_id, document, $5
from unnest($1::text[], $2::text[], $3::text[], $4::bytea[]) as new (escalation_id, kind, plan_id, document)
where kind = 'OPENED' or exists (
    select from escalation_document as opening where opening.escalation_id = new.escalation_id and opening.kind = 'OPENED')
"""

#: What the notary was not told yet, the oldest first.
UNTOLD: Final = """
select said.escalation_id, said.kind, said.plan_id, said.document, plan.digest as plan_digest
from escalation_document as said join plan on plan.plan_id = said.plan_id
where said.told_at is null order by said.written_at, said.escalation_id, said.kind limit $1
"""

#: Notes what the notary answered.
TOLD: Final = """
update escalation_document as said set told_at = clock_timestamp(), refusal = told.refusal
from unnest($1::text[], $2::text[], $3::text[]) as told (escalation_id, kind, refusal)
where said.escalation_id = told.escalation_id and said.kind = told.kind and said.told_at is null
"""

#: The notary's database was put back: it is told everything again.
TELL_AGAIN: Final = "update escalation_document set told_at = null, refusal = '' where told_at is not null"

#: What is said of escalations, first of their opening.
READ: Final = """
select escalation_id, kind, document, told_at, refusal from escalation_document where escalation_id = any($1) order by escalation_id, kind
"""


@dataclass(frozen=True, slots=True)
class KeptDocument:
    """What is said of an escalation, and whether the notary took it."""

    #: RFC 8785 bytes.
    document: bytes
    #: When the notary answered; None: not yet.
    told_at: datetime | None
    #: Why it refused it, or "".
    refusal: str


async def insert(tx: Connection, said: Sequence[Said], now: datetime) -> None:
    """Keep what is said of escalations, in the transaction that opens or closes them."""
    if said:
        await tx.execute(
            INSERT,
            [each.escalation_id for each in said],
            [each.kind.value for each in said],
            [each.plan_id for each in said],
            [each.document for each in said],
            now,
        )


async def untold(connection: Connection, limit: int) -> list[Said]:
    """What the notary was not told yet, the oldest first."""
    return [_said(row) for row in await connection.fetch(UNTOLD, limit)]


async def told(connection: Connection, answers: Sequence[tuple[Said, str]]) -> None:
    """Note what the notary answered: why it refused, or "" where it took it."""
    await connection.execute(
        TOLD,
        [each.escalation_id for each, _ in answers],
        [each.kind.value for each, _ in answers],
        [refusal for _, refusal in answers],
    )


async def tell_again(connection: Connection) -> None:
    """Have the notary told everything again."""
    await connection.execute(TELL_AGAIN)


async def read(connection: Connection, escalations: Sequence[str]) -> Mapping[str, tuple[KeptDocument, ...]]:
    """What is said of escalations, first of their opening."""
    found: dict[str, tuple[KeptDocument, ...]] = dict.fromkeys(escalations, ())
    for row in await connection.fetch(READ, list(escalations)):
        kept = KeptDocument(row["document"], row["told_at"], row["refusal"])
        found[row["escalation_id"]] = (*found[row["escalation_id"]], kept)
    return found


def _said(row: asyncpg.Record) -> Said:
    return Said(
        PlanId(row["plan_id"]), Digest(row["plan_digest"]), row["escalation_id"], EscalationKind(row["kind"]), row["document"]
    )
