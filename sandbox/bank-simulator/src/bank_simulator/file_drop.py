"""Counterparties that exchange files: the bank takes what they put into their out-folder, and puts its mailbox into their in-folder.

A file is whole once it has its name; names that begin with a dot, or end in .part or .tmp, are not there yet. Files are taken in the order of their
last change, carried out in a transaction each, and then moved: a death in between makes a repeat, which changes nothing. What is dropped is named by
its cursor, written under another name first, and acknowledged after it lies there.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

import structlog

from bank_simulator.checks import CheckError
from bank_simulator.desk import Conflict, Desk, UnknownHold, WrongKey
from bank_simulator.iso20022.parser import MESSAGE_BYTES_MAX
from bank_simulator.iso20022.releases import read_release
from bank_simulator.mailbox import Mailboxes
from bank_simulator.settings import Counterparty, FileDropSettings

LOOK_SECONDS: Final = 0.05
RETRY_SECONDS: Final = 0.5
ITEMS_MAX: Final = 100
_UNFINISHED: Final = (".part", ".tmp")

log = structlog.get_logger()


class FileDrop:
    """One counterparty's folders."""

    def __init__(self, desk: Desk, mailboxes: Mailboxes, counterparty: Counterparty, settings: FileDropSettings) -> None:
        self._desk = desk
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
        for path in self._waiting():
            try:
                with path.open("rb") as file:
                    body = file.read(MESSAGE_BYTES_MAX + 1)
            except FileNotFoundError:
                continue
            folder = self._settings.done
            try:
                await self._carry_out(path.stem, body)
            except (CheckError, Conflict, UnknownHold, WrongKey) as refused:
                log.warning("file refused", counterparty=self._counterparty.name, file=path.name, why=type(refused).__name__)
                folder = self._settings.refused
            path.replace(folder / path.name)

    async def _carry_out(self, key: str, body: bytes) -> None:
        try:
            order = read_release(body, self._counterparty.certificates)
        except CheckError:
            order = None  # it goes the way of every message that is not valid: into quarantine
        if order is None:
            await self._desk.receive(self._counterparty, key, body)
        elif (order.sender, order.name) != (self._counterparty.bic, key):
            raise CheckError("ReleaseOrder", "PARTY_MATCH", "sender or name differ from the file's")
        else:
            await self._desk.release(self._counterparty, key, order.uetr, order.key, body)

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
