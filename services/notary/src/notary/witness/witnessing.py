"""The witness's round: look at the journal's newest checkpoint, judge it, and cosign it or raise an alarm. Holds no rules.

A cosignature is stored before anybody is shown it, under a lock that every replica takes; whoever finds there that somebody else has concluded something
meanwhile drops what it has and looks again. So no two cosignatures contradict each other, from however many processes, killed wherever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog

from lockstep_kit import notes
from lockstep_kit.db import Connection, Database
from lockstep_kit.failpoints import declare, failpoint
from lockstep_kit.registry import Registry
from lockstep_kit.signing import SigningKey
from lockstep_kit.values import dataclass
from notary.witness import judging, store
from notary.witness.journal_log import JournalLog, LogUnanswered
from notary.witness.judging import Alarm, Cosign, Log, NothingNew, ProofNeeded, Seen
from notary.witness.ports import CheckpointAnchors
from notary.witness.settings import WitnessSettings
from notary.witness.store import Standing, Witnessed

_log = structlog.get_logger()

declare("notary.witness.cosign.in_tx", "notary.witness.cosign.after_commit")


@dataclass(frozen=True, slots=True)
class Look:
    """What the journal showed, and what that is worth."""

    #: As it was received; None: it has no checkpoint.
    note: bytes | None
    #: As it was received; None: none was asked for or given.
    proof: Sequence[bytes] | None
    #: What it is worth.
    verdict: Cosign | NothingNew | Alarm


class Cosigner:
    """Puts the witness's name to checkpoints."""

    def __init__(self, name: str, key: SigningKey) -> None:
        self._name: Final = name
        self._key: Final = key

    def witnessed(self, signed: notes.SignedCheckpoint, history: int, now: datetime) -> Witnessed:
        """The checkpoint, cosigned."""
        seen = Seen(signed.checkpoint.size, signed.checkpoint.root)
        return Witnessed(history, seen, notes.cosign(signed, self._name, self._key, now).note, now)


def log_at(settings: WitnessSettings, registry: Registry, moment: datetime) -> Log:
    """The journal's log with the keys that are valid at a moment."""
    registered = [each for each in registry.participants if each.name == settings.journal_participant]
    keys = tuple(key.public for each in registered for key in each.keys if key.valid_at(moment))
    return Log(settings.journal_origin, keys)


async def look(journal: JournalLog, log: Log, last: Seen) -> Look:
    """Ask the journal for its newest checkpoint, and for the proof that it needs.

    Raises:
        LogUnanswered: nothing is known.
    """
    note = await journal.newest()
    verdict = judging.judge_note(last, note, log)
    if not isinstance(verdict, ProofNeeded):
        return Look(note, None, verdict)
    proof = await journal.consistency(last.size, verdict.signed.checkpoint.size)
    return Look(note, proof, judging.judge_proof(last, verdict.signed, proof))


class Witness:
    """Looks at the journal's log, round by round."""

    def __init__(
        self,
        db: Database,
        journal: JournalLog,
        cosigner: Cosigner,
        registry: Registry,
        settings: WitnessSettings,
        anchors: CheckpointAnchors | None,
    ) -> None:
        self._db = db
        self._journal = journal
        self._cosigner = cosigner
        self._registry = registry
        self._settings = settings
        self._anchors = anchors
        #: The alarm that this process has told of.
        self._told: int | None = None
        #: On the loop's clock; None while the journal answers.
        self._unanswered_since: float | None = None
        self._silence_told = False

    async def round(self) -> None:
        """Look once."""
        async with self._db.connection() as connection:
            before = await store.standing(connection)
        if before.alarm is not None:
            self._tell(before.alarm)
            return
        if before.restored:
            await self._conclude(before, Look(None, None, judging.RESTORED))
            return
        try:
            found = await look(self._journal, log_at(self._settings, self._registry, before.now), before.seen)
        except LogUnanswered as error:
            self._unanswered(str(error))
            return
        self._answered()
        await self._conclude(before, found)

    async def _conclude(self, before: Standing, found: Look) -> None:
        if isinstance(found.verdict, NothingNew) and not self._anchor_due(before, before.seen):
            async with self._db.connection() as connection:
                await store.looked(connection)
            return
        async with self._db.transaction() as tx:
            now = await store.locked(tx)
            if now.place != before.place:
                # The journal was asked about what is not the last any more.
                return
            match found.verdict:
                case Alarm() as alarm:
                    cosigned = None if now.last is None else now.last.note
                    await store.raise_alarm(tx, alarm, cosigned=cosigned, refused=found.note, proof=found.proof)
                case Cosign(signed):
                    witnessed = self._cosigner.witnessed(signed, 1 if now.last is None else now.last.history, now.now)
                    await store.witness(tx, witnessed)
                    await self._anchor(tx, now, witnessed.seen)
                    await store.looked(tx)
                    await failpoint("notary.witness.cosign.in_tx")
                case NothingNew():
                    await self._anchor(tx, now, now.seen)
                    await store.looked(tx)
        if isinstance(found.verdict, Cosign):
            await failpoint("notary.witness.cosign.after_commit")
            _log.debug("checkpoint_witnessed", tree_size=found.verdict.signed.checkpoint.size)
        if isinstance(found.verdict, Alarm):
            async with self._db.connection() as connection:
                raised = (await store.standing(connection)).alarm
            if raised is not None:
                self._tell(raised)

    async def _anchor(self, tx: Connection, standing: Standing, newest: Seen) -> None:
        """Ask for an anchor of the newest root, if it is time and it has none yet."""
        if self._anchors is not None and self._anchor_due(standing, newest):
            await self._anchors.request(tx, newest.root, newest.size)
            await store.anchor_requested(tx, newest.root)

    def _anchor_due(self, standing: Standing, newest: Seen) -> bool:
        if self._anchors is None or newest.size == 0 or newest.root == standing.anchor_requested_root:
            return False
        last = standing.anchor_requested_at
        return last is None or standing.now >= last + timedelta(seconds=self._settings.anchor_seconds)

    def _tell(self, raised: store.RaisedAlarm) -> None:
        if self._told == raised.id:
            return
        self._told = raised.id
        _log.error("witness_alarm", rule=raised.alarm.rule.value, finding=raised.alarm.message, since=raised.at.isoformat())

    def _unanswered(self, error: str) -> None:
        clock = asyncio.get_running_loop().time()
        if self._unanswered_since is None:
            self._unanswered_since = clock
            _log.warning("journal_unanswered", error=error)
        elif not self._silence_told and clock - self._unanswered_since >= self._settings.silence_seconds:
            self._silence_told = True
            _log.error("journal_silent", error=error, seconds=round(clock - self._unanswered_since))

    def _answered(self) -> None:
        if self._unanswered_since is not None:
            _log.info("journal_answers_again")
        self._unanswered_since, self._silence_told = None, False
