"""Puts the witness together out of the notary's settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from lockstep_kit.db import Database
from lockstep_kit.fields import require
from lockstep_kit.loops import Loop
from lockstep_kit.registry import Registry
from lockstep_kit.rpc import TlsSettings, channel
from lockstep_kit.signing import SigningKey
from notary.witness.journal_log import MESSAGE_BYTES_MAX, JournalLog
from notary.witness.ports import CheckpointAnchors
from notary.witness.settings import WitnessSettings
from notary.witness.witnessing import Cosigner, Witness

_log = structlog.get_logger()


@asynccontextmanager
async def journal_log(settings: WitnessSettings, tls: TlsSettings) -> AsyncIterator[JournalLog | None]:
    """The journal's log at the end of a channel; None where the settings name no journal."""
    if settings.journal is None:
        yield None
        return
    connection = channel(settings.journal, tls, message_bytes_max=MESSAGE_BYTES_MAX)
    try:
        yield JournalLog(connection, settings.witness_call_seconds)
    finally:
        await connection.close()


@asynccontextmanager
async def witnessing(
    settings: WitnessSettings,
    tls: TlsSettings,
    *,
    db: Database,
    registry: Registry,
    signing_key: SigningKey,
    anchors: CheckpointAnchors | None,
) -> AsyncIterator[tuple[Loop, ...]]:
    """The witness's loop; none where the settings name no journal.

    Raises:
        FieldInvalid: the registry knows nobody who signs the journal's log.
    """
    async with journal_log(settings, tls) as journal:
        if journal is None:
            _log.warning("nothing_witnessed", reason="the settings name no journal")
            yield ()
            return
        check_log(settings, registry)
        cosigner = Cosigner(settings.witness_name, signing_key)
        witness = Witness(db, journal, cosigner, registry, settings, anchors)
        yield (Loop("notary.witness", witness.round, poll_seconds=settings.witness_seconds),)


def check_log(settings: WitnessSettings, registry: Registry) -> None:
    """Somebody is known who may sign the log.

    Raises:
        FieldInvalid: nobody is.
    """
    known = any(each.name == settings.journal_participant for each in registry.participants)
    require(known, "journal_participant", "must be a participant of the registry")
