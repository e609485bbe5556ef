"""`python -m notary.witness --config FILE`: what was cosigned last, the alarm if there is one, and what the journal shows now.

A witness that has raised an alarm cosigns nothing, and no restart makes it go on. A person looks at both notes, and then names the root of the tree to go on
from: `--acknowledge ROOT --finding TEXT` names the one that was cosigned last, and the journal has to continue it; with `--follow` it is the one that the
journal shows now, as after a restore of the journal. The alarm stays on record for ever, and is served.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Final

from lockstep_kit.db import Database
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import Digest
from lockstep_kit.key_files import read_signing_key
from lockstep_kit.notes import NoteInvalid, SignedCheckpoint, parse
from lockstep_kit.registry import Registry
from lockstep_kit.registry_file import load_registry
from lockstep_kit.settings import load
from notary.settings import NotarySettings
from notary.witness import judging, store
from notary.witness.journal_log import JournalLog, LogUnanswered
from notary.witness.judging import Alarm, Rule, Seen
from notary.witness.opening import check_log, journal_log
from notary.witness.settings import WitnessSettings
from notary.witness.store import Standing
from notary.witness.witnessing import Cosigner, Look, log_at, look

#: What a log that was put back may break. Whatever else is broken, nobody can follow.
FOLLOWED: Final = frozenset({Rule.LOG_SHRUNKEN, Rule.LOG_SPLIT, Rule.PROOF_MISSING})


class Desk:
    """Where a person looks at what the witness refuses, and has it go on."""

    def __init__(
        self, db: Database, journal: JournalLog, cosigner: Cosigner, registry: Registry, settings: WitnessSettings
    ) -> None:
        self._db = db
        self._journal = journal
        self._cosigner = cosigner
        self._registry = registry
        self._settings = settings

    async def look(self) -> tuple[Standing, Look]:
        """How the witness stands to the log, and what the journal shows now.

        Raises:
            LogUnanswered: the journal does not answer.
        """
        async with self._db.connection() as connection:
            standing = await store.standing(connection)
        return standing, await look(self._journal, log_at(self._settings, self._registry, standing.now), standing.seen)

    async def holds(self, tree: Seen) -> str:
        """Whether what the journal shows begins with a tree, such as one whose root is anchored on chain; why not, or "".

        Raises:
            LogUnanswered: the journal does not answer.
        """
        async with self._db.connection() as connection:
            now = (await store.standing(connection)).now
        verdict = (await look(self._journal, log_at(self._settings, self._registry, now), tree)).verdict
        return verdict.message if isinstance(verdict, Alarm) else ""

    async def acknowledge(self, root: bytes, finding: str, *, follow: bool) -> str:
        """Have the witness go on from the tree with this root; why not, or "".

        Raises:
            LogUnanswered: the journal does not answer.
        """
        standing, found = await self.look()
        if standing.alarm is None:
            return "there is no alarm: there is nothing to acknowledge"
        if not follow:
            if root != standing.seen.root:
                return f"the root that was cosigned last is {standing.seen.root.hex()}, which is not the one that was named"
            return await self._close(standing, finding, None)
        if standing.last is None:
            return "nothing was cosigned yet: there is nothing to follow instead"
        return await self._follow(standing, found, root, finding)

    async def _follow(self, standing: Standing, found: Look, root: bytes, finding: str) -> str:
        if not isinstance(found.verdict, Alarm):
            return "what the journal shows continues what was cosigned: acknowledge without --follow"
        if found.verdict.rule not in FOLLOWED:
            return f"what the journal shows cannot be followed: {found.verdict.message}"
        if found.note is None:
            return "the journal has no checkpoint: there is nothing to follow"
        signed = judging.read_note(found.note, log_at(self._settings, self._registry, standing.now))
        if isinstance(signed, Alarm):
            raise AssertionError("a note that breaks a rule of the log was read")
        if signed.checkpoint.root != root:
            return f"the journal shows the root {signed.checkpoint.root.hex()}, which is not the one that was named"
        return await self._close(standing, finding, signed)

    async def _close(self, standing: Standing, finding: str, follow: SignedCheckpoint | None) -> str:
        async with self._db.transaction() as tx:
            now = await store.locked(tx)
            if now.place != standing.place or now.alarm is None:
                return "the witness stands elsewhere by now: look again"
            begins = None if follow is None or now.last is None else now.last.history + 1
            await store.acknowledge(tx, now.alarm, finding, follows=begins)
            if follow is not None and begins is not None:
                await store.witness(tx, self._cosigner.witnessed(follow, begins, now.now))
        return ""


def _tree(seen: Seen) -> dict[str, object]:
    return {"tree_size": seen.size, "root": seen.root.hex()}


def _told(standing: Standing, found: Look | None, error: str) -> dict[str, object]:
    alarm, last = standing.alarm, standing.last
    told: dict[str, object] = {
        "last": _tree(standing.seen) | ({} if last is None else {"witnessed_at": last.at.isoformat(), "history": last.history}),
        "alarm": alarm
        and {
            "rule": alarm.alarm.rule.value,
            "message": alarm.alarm.message,
            "raised_at": alarm.at.isoformat(),
            "cosigned_note": alarm.cosigned_note and alarm.cosigned_note.decode("utf-8", "replace"),
            "refused_note": alarm.refused_note and alarm.refused_note.decode("utf-8", "replace"),
        },
    }
    if found is None:
        return {**told, "journal": None, "agree": None, "error": error}
    broken = found.verdict if isinstance(found.verdict, Alarm) else None
    shown = None if found.note is None else found.note.decode("utf-8", "replace")
    journal = {"note": shown, "rule": broken and broken.rule.value, "message": broken and broken.message, "root": _root(found)}
    return {**told, "journal": journal, "agree": broken is None}


def _root(found: Look) -> str | None:
    """Root that the journal shows, as far as one can be read."""
    if found.note is None:
        return None
    try:
        return parse(found.note).checkpoint.root.hex()
    except NoteInvalid:
        return None


async def run(settings: NotarySettings, root: bytes | None, finding: str, *, follow: bool, tree: Seen | None) -> int:
    """Do what was asked; returns the exit status."""
    registry = load_registry(settings.participant.registry_file)
    check_log(settings, registry)
    cosigner = Cosigner(settings.witness_name, read_signing_key(settings.participant.signing_key_file))
    db = await Database.connect(settings.database, application_name="witness")
    try:
        async with journal_log(settings, settings.tls) as journal:
            if journal is None:
                raise FieldInvalid("journal", "must be given: without it nothing is witnessed")
            desk = Desk(db, journal, cosigner, registry, settings)
            try:
                if root is not None:
                    why = await desk.acknowledge(root, finding, follow=follow)
                elif tree is not None:
                    why = await desk.holds(tree)
                else:
                    return await _show(db, desk)
            except LogUnanswered as error:
                why = f"the journal does not answer: {error}"
    finally:
        await db.close()
    if why:
        sys.stderr.write(f"{why}\n")
    return 1 if why else 0


async def _show(db: Database, desk: Desk) -> int:
    try:
        standing, found = await desk.look()
        told = _told(standing, found, "")
    except LogUnanswered as error:
        async with db.connection() as connection:
            told = _told(await store.standing(connection), None, str(error))
    sys.stdout.write(f"{json.dumps(told)}\n")
    return 0 if told["agree"] and told["alarm"] is None else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="notary.witness", description="Shows how the witness stands to the journal's log, and has it go on after an alarm."
    )
    parser.add_argument("--config", required=True, help="settings of the notary, YAML")
    parser.add_argument("--acknowledge", type=_hash, metavar="ROOT", help="root of the tree to go on from, as shown")
    parser.add_argument("--finding", default="", help="what was found out about what was refused")
    parser.add_argument("--follow", action="store_true", help="go on from what the journal shows now, which continues nothing")
    parser.add_argument(
        "--holds",
        nargs=2,
        metavar=("SIZE", "ROOT"),
        help="whether the journal's log begins with this tree, as one anchored on chain",
    )
    given = parser.parse_args(argv)
    if given.holds is not None and given.acknowledge is not None:
        parser.error("--holds changes nothing, and goes without --acknowledge")
    if given.acknowledge is not None and not given.finding.strip():
        parser.error("--acknowledge needs --finding")
    if given.follow and given.acknowledge is None:
        parser.error("--follow needs --acknowledge")
    try:
        tree = None if given.holds is None else Seen(int(given.holds[0]), Digest(_hash(given.holds[1])))
    except ValueError:
        parser.error("--holds needs a number of leaves, and a root of 32 bytes in hex")
    settings = load(NotarySettings, ["--config", given.config])
    return asyncio.run(run(settings, given.acknowledge, given.finding.strip(), follow=given.follow, tree=tree))


def _hash(text: str) -> bytes:
    found = bytes.fromhex(text.removeprefix("0x"))
    if len(found) != 32:
        raise ValueError("must be a hash of 32 bytes in hex")
    return found
