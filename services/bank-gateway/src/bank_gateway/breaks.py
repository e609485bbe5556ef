"""Opens and closes breaks. A break is a matter: a person closes it as any other, and a leg that it concerns says so until then. Holds no rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog

from bank_gateway import matters, statement_store
from bank_gateway.reconciliation import Break
from lockstep_kit.db import Connection
from lockstep_kit.ids import sha256
from lockstep_kit.participant.engine import ParticipantEngine

_log = structlog.get_logger()

#: What shows a break that no message shows, such as a statement that did not come.
NO_MESSAGE: Final = ("", sha256(b""))


async def open_break(
    tx: Connection, engine: ParticipantEngine, counterparty: str, difference: Break, message: tuple[str, bytes] = NO_MESSAGE
) -> None:
    """Open a break, shown by a message (its identification and SHA-256). The caller has locked its leg."""
    matter = await statement_store.add_break(tx, counterparty, difference, *message)
    _log.error(
        "break_opened", matter=matter, kind=difference.kind, day=difference.day.isoformat(),
        uetr=difference.uetr, asset=difference.asset, minor_units=difference.minor_units, why=difference.sentence,
    )  # fmt: skip
    if difference.leg is not None:
        await engine.trouble(tx, *difference.leg, difference.sentence)


async def resolve_breaks(tx: Connection, found: Sequence[int], statement: int, why: str) -> None:
    """Close breaks that a statement resolves."""
    for matter in found:
        await matters.close_in(tx, matter, why)
    if found:
        await statement_store.resolve(tx, found, statement)
        _log.info("breaks_resolved", matters=list(found), why=why)
