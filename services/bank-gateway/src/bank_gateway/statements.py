"""Takes account statements page by page, and reads whole ones again from the messages that are kept. Holds no rules."""

from __future__ import annotations

from collections.abc import Sequence

from bank_gateway import statement_store
from bank_gateway.iso20022 import reader
from bank_gateway.iso20022.schemas import Schemas
from bank_gateway.messages import Received
from bank_gateway.reconciliation import DayStatement, assembled
from bank_gateway.statement_store import StatementRow
from lockstep_kit.db import Connection
from lockstep_kit.values import dataclass


@dataclass(frozen=True, slots=True)
class WholeStatement:
    """A statement, and the messages that it came in."""

    #: What it says.
    statement: DayStatement
    #: Its pages, in order: the message, and how many of the statement's entries stand before it.
    pages: tuple[tuple[Received, int], ...]

    def page_of(self, place: int) -> Received:
        """The message that an entry came in."""
        return next(received for received, before in reversed(self.pages) if before <= place)


async def take(tx: Connection, received: Received, schemas: Schemas) -> None:
    """Keep the pages that a message, kept before in the same transaction, holds.

    Raises:
        StatementBroken: with its last missing page, a statement does not make a whole.
    """
    for page in received.pages:
        statement, whole = await statement_store.note_statement(tx, received.envelope.sender, page)
        if whole:
            continue
        await statement_store.add_page(tx, statement, page, received.envelope.message_id, received.sha256)
        kept = await statement_store.page_octets(tx, statement)
        if kept[-1][1] and len(kept) == kept[-1][0]:
            found = _whole([octets for _, _, octets in kept], (page.account, page.statement_id), schemas)
            await statement_store.set_whole(tx, statement, found.statement)


async def whole(tx: Connection, row: StatementRow, schemas: Schemas) -> WholeStatement:
    """A whole statement, read again from its pages."""
    return _whole(
        [octets for _, _, octets in await statement_store.page_octets(tx, row.id)], (row.account, row.statement_id), schemas
    )


def _whole(octets: Sequence[bytes], name: tuple[str, str], schemas: Schemas) -> WholeStatement:
    messages = [reader.read(each, schemas) for each in octets]
    pages = [next(page for page in message.pages if (page.account, page.statement_id) == name) for message in messages]
    places, before = [], 0
    for message, page in zip(messages, pages, strict=True):
        places.append((message, before))
        before += len(page.entries)
    return WholeStatement(assembled(pages), tuple(places))
