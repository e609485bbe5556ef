"""Counterparties that exchange files: the bank takes what they put into their out-folder, and puts its mailbox into their in-folder.

A file is whole once it has its name; names that begin with a dot, or end in .part or .tmp, are not there yet. Files are taken in the order of their
last change, carried out many at a time, and then moved: a death in between makes a repeat, which changes nothing. What is dropped is named by
its cursor, written under another name first, and acknowledged after it lies there.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

import structlog

from bank_simulator.checks import CheckError
from bank_simulator.intake import Accepted, Asked, Conflict, Intake, UnknownHold, WrongKey
from bank_simulator.iso20022.parser import MESSAGE_BYTES_MAX
from bank_simulator.iso20022.releases import read_release
from bank_simulator.mailbox import Mailboxes
from bank_simulator.settings import Counterparty, FileDropSettings

LOOK_SECONDS: Final = 0.05
RETRY_SECONDS: Final = 0.5
ITEMS_MAX: Final = 100
_UNFINISHED: Final = (".part", ".tmp")
_REFUSALS: Final = (CheckError, Conflict, UnknownHold, WrongKey)

log = structlog.get_logger()


class FileDrop:
    """One counterparty's folders."""

    def __init__(self, intake: Intake, mailboxes: Mailboxes, counterparty: Counterparty, settings: FileDropSettings) -> None:
        self._intake = intake
        self._mailboxes = mailboxes
        self._counterparty = counterparty
        self._settings = settings
        for folder in (settings.inbox, settings.outbox, settings.done, settings.refused):
            folder.mkdir(parents=True, exist_ok=True)

    async def run(self) -> None:
        """Runs until cancelled; an error is logged, and what it was about is done again."""
        while True:
            try:
                await self.take()
                await self.drop()
                await asyncio.sleep(LOOK_SECONDS)
            except Exception:
                log.exception("file drop", counterparty=self._counterparty.name)
                await asyncio.sleep(RETRY_SECONDS)

    async def take(self) -> None:
        """Carries out what lies in the inbox."""
        waiting = self._waiting()
        for begin in range(0, len(waiting), ITEMS_MAX):
            read = [(path, asked) for path in waiting[begin : begin + ITEMS_MAX] if (asked := self._read(path)) is not None]
            taken = iter(await self._intake.take(self._counterparty, [asked for _, asked in read if isinstance(asked, Asked)]))
            answers = [(path, next(taken) if isinstance(asked, Asked) else asked) for path, asked in read]
            for path, answer in answers:
                if isinstance(answer, _REFUSALS):
                    log.warning("file refused", counterparty=self._counterparty.name, file=path.name, why=type(answer).__name__)
                    path.replace(self._settings.refused / path.name)
                elif isinstance(answer, Accepted):
                    path.replace(self._settings.done / path.name)
            failed = next(
                (answer for _, answer in answers if isinstance(answer, Exception) and not isinstance(answer, _REFUSALS)), None
            )
            if failed is not None:
                raise failed

    def _read(self, path: Path) -> Asked | CheckError | None:
        """What a file asks for, or what is wrong with its form; None where it is gone."""
        try:
            with path.open("rb") as file:
                body = file.read(MESSAGE_BYTES_MAX + 1)
        except FileNotFoundError:
            return None
        try:
            order = read_release(body, self._counterparty.certificates)
        except CheckError:
            order = None  # it goes the way of every message that is not valid: into quarantine
        if order is None:
            return Asked(path.stem, body)
        if (order.sender, order.name) != (self._counterparty.bic, path.stem):
            return CheckError("ReleaseOrder", "PARTY_MATCH", "sender or name differ from the file's")
        return Asked(path.stem, body, (order.uetr, order.key))

    def _waiting(self) -> list[Path]:
        with os.scandir(self._settings.inbox) as entries:
            found = [
                (entry.stat().st_mtime_ns, entry.name)
                for entry in entries
                if entry.is_file(follow_symlinks=False) and not entry.name.startswith(".") and not entry.name.endswith(_UNFINISHED)
            ]
        return [self._settings.inbox / name for _, name in sorted(found)]

    async def drop(self) -> None:
        """Puts what is in the mailbox, and was not acknowledged, into the outbox."""
        for item in await self._mailboxes.read(self._counterparty.name, None, ITEMS_MAX, 0):
            final = self._settings.outbox / f"{item.cursor:019d}.xml"
            part = final.with_name(f"{final.name}.part")
            with part.open("wb") as file:
                file.write(item.body)
                file.flush()
                os.fsync(file.fileno())
            part.replace(final)
            folder = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
            await self._mailboxes.acknowledge(self._counterparty.name, item.cursor)
