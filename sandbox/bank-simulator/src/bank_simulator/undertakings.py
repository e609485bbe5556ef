"""The trade desk: drafts of undertakings are lodged against a facility, issued by the very message that they name, or withdrawn. Each under its UETR's lock.

A repeat is answered by how things stand: these messages know no question, so whoever is in doubt says the same again.
"""

from __future__ import annotations

from uuid import UUID
from zoneinfo import ZoneInfo

from bank_simulator import undertaking_store as store
from bank_simulator.checks import CheckError
from bank_simulator.correspondence import Correspondence
from bank_simulator.instruments import (
    Application,
    Issuance,
    Termination,
    Undertaking,
    UndertakingState,
    UndertakingStatus,
    refuses,
)
from bank_simulator.misbehaviour import Kind, Stage, Subject

#: ExternalStatusReason1Code of what was never received.
NEVER_RECEIVED = "NOOR"


async def apply(desk: Correspondence, order: Application) -> None:
    """Lodges a draft and holds the facility for it, or turns it down; one that is known is told as it stands.

    Raises:
        CheckError: Its reference is that of another undertaking; nothing was changed.
    """
    known = await store.find(desk.tx, order.uetr)
    if known is not None:
        if known.counterparty != desk.counterparty.name or known.content_sha256 not in (None, order.content_sha256):
            raise CheckError("UdrtkgAppl/ApplcntRefNb", "REFERENCE_REUSED", "another undertaking has this reference")
        await _say_again(desk, known)
        return
    today = desk.now.astimezone(ZoneInfo(desk.bank.time_zone)).date()
    refusal = refuses(order, await store.facility(desk.tx, order.account, today), desk.bank, desk.counterparty, today)
    if refusal is None and await store.number_taken(desk.tx, order.number, order.uetr):
        refusal = "DUPL", "another undertaking has this number"
    script = desk.mischief.take({Kind.REFUSE}, _subject(order.uetr), stage="application")
    if refusal is None and script is not None:
        refusal = script.reason, "refused by the bank"
    state = UndertakingState.LODGED if refusal is None else UndertakingState.REJECTED
    await store.add(desk.tx, desk.counterparty.name, order, state, None if refusal is None else refusal[0])
    if refusal is None:
        await _say(desk, UndertakingStatus(order.uetr, order.number, "APPL", "ACCP"))
    else:
        await _say(desk, UndertakingStatus(order.uetr, order.number, "APPL", "REJT", *refusal))
    await _contradict(desk, order.uetr, order.number, "application")


async def issue(desk: Correspondence, asked: Issuance) -> None:
    """Issues what is lodged, if it is that; advises it; and notifies its sender of it. Whatever ends a draft, it ends for good."""
    known = await _known(desk, asked)
    if known is None:
        return
    if known.state is not UndertakingState.LODGED:
        await _say_again(desk, known)
        return
    today = desk.now.astimezone(ZoneInfo(desk.bank.time_zone)).date()
    script = desk.mischief.take({Kind.REFUSE}, _subject(asked.uetr), stage="issuance")
    refusal = None if script is None else (script.reason, "refused by the bank")
    if known.issuance_sha256 != asked.content_sha256 or known.number != asked.number:
        refusal = "NARR", "it is another issuance than the draft names"
    elif known.expires_on is not None and known.expires_on < today:
        refusal = "DT01", "its own day is over"
    if refusal is not None:
        await store.end(desk.tx, asked.uetr, UndertakingState.REJECTED, refusal[0])
        await _say(desk, UndertakingStatus(asked.uetr, known.number, "APPL", "REJT", *refusal))
        return
    await store.issue(desk.tx, known, asked, today)
    wrong = desk.mischief.take({Kind.MISBOOK}, _subject(asked.uetr), message="tsrv.003")
    message = await desk.notification(known, today, asked.document, amount=known.amount + 1 if wrong else None)
    await store.remember(desk.tx, asked.uetr, message)
    await _contradict(desk, asked.uetr, known.number, "issuance")


async def terminate(desk: Correspondence, asked: Termination) -> None:
    """Withdraws a draft; one that never came is given a tombstone; one that is issued stays, since its beneficiary has not consented."""
    known = await _known(desk, asked)
    if known is None:
        return
    match known.state:
        case UndertakingState.LODGED:
            script = desk.mischief.take({Kind.REFUSE}, _subject(asked.uetr), stage="termination")
            if script is not None:
                await desk.undertaking_status(
                    UndertakingStatus(asked.uetr, known.number, "TERM", "REJT", script.reason, "refused by the bank")
                )
                return
            await store.end(desk.tx, asked.uetr, UndertakingState.WITHDRAWN)
            await _say(desk, UndertakingStatus(asked.uetr, known.number, "APPL", "WTHD"))
            await _contradict(desk, asked.uetr, known.number, "termination")
        case UndertakingState.ISSUED:
            stays = UndertakingStatus(
                asked.uetr, known.number, "TERM", "REJT", "ARDT", "issued, and the beneficiary has not consented"
            )
            await desk.undertaking_status(stays)
            await _say_again(desk, known)
        case _:
            await _say_again(desk, known)


def _never(uetr: UUID, number: str) -> UndertakingStatus:
    return UndertakingStatus(uetr, number, "APPL", "REJT", NEVER_RECEIVED, "never received, and not taken any more")


def _require_own(desk: Correspondence, known: Undertaking) -> None:
    if known.counterparty != desk.counterparty.name:
        raise CheckError("Document", "COUNTERPARTY", "the undertaking is not the sender's")


async def _known(desk: Correspondence, asked: Issuance | Termination) -> Undertaking | None:
    """What is asked about; what never came is given a tombstone, and that is said."""
    known = await store.find(desk.tx, asked.uetr)
    if known is None:
        await store.add_tombstone(desk.tx, desk.counterparty.name, asked.uetr, asked.number)
        await _say(desk, _never(asked.uetr, asked.number))
        return None
    _require_own(desk, known)
    return known


async def _say(desk: Correspondence, told: UndertakingStatus) -> None:
    await store.remember(desk.tx, told.uetr, await desk.undertaking_status(told))


async def _say_again(desk: Correspondence, known: Undertaking) -> None:
    """What was last said, in the same bytes."""
    if known.status_message is None:
        raise AssertionError("something was said of every undertaking")
    desk.again([known.status_message])


async def _contradict(desk: Correspondence, uetr: UUID, number: str, stage: Stage) -> None:
    """Says that it is turned down after all, if told to. Nothing but words: it is not remembered, and nothing changes."""
    script = desk.mischief.take({Kind.CONTRADICT}, _subject(uetr), stage=stage)
    if script is not None:
        told = UndertakingStatus(uetr, number, "APPL", "REJT", script.reason, "the opposite of what was said before")
        await desk.undertaking_status(told)


def _subject(uetr: UUID) -> Subject:
    return Subject(frozenset([uetr]), frozenset())
