"""The file rail: folders that are shared with the bank. A message is a file, whole from the moment that it has its name.

    out/         ours to fill: KEY.xml, a message or a release, named by its idempotency key. The bank takes them away
    in/          the bank's to fill, in the order of names. Names that begin with a dot, or end in .part or .tmp, are not there yet
    taken/       what came, numbered in the order in which it was found: NUMBER.NAME. The number is the delivery's place
    archive/     what was stored, under the same names; quarantine/ what was quarantined

Writing: to a temporary name in the same folder, fsync, rename, fsync of the folder. Numbering: the next number is noted in `taken/.number`, then the file is
moved; a number that is lost in between is nobody's. A file leaves `taken` only after the transaction that stored or quarantined it, by what the database
says, so that a death at any step loses nothing and a database that was set back finds everything again by its place.

Several gateways may share the folders: numbering, listing and moving happen under one lock (flock on `taken/.lock`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

from bank_gateway.rail import Accepted, Delivery, Handover, MailboxUnavailable, Message, NoAnswer, Request
from lockstep_kit.failpoints import declare, failpoint

_Result = TypeVar("_Result")

DELIVERIES_MAX: Final = 20
#: One more than any message may have: what is larger is seen to be, and no more of it is read.
OCTETS_READ_MAX: Final = (1 << 20) + 1
#: How long the folders are waited for while another gateway works in them, and how often they are tried.
LOCK_SECONDS_MAX: Final = 10.0
LOCK_PAUSE_SECONDS: Final = 0.05
#: A temporary file that is older was left by a gateway that died.
LEFT_SECONDS: Final = 3600.0
#: Octets of a name that are kept behind its number.
NAME_OCTETS_MAX: Final = 200
FOLDERS: Final = ("out", "in", "taken", "archive", "quarantine")
_UNFINISHED: Final = (".part", ".tmp")
_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,100}")
_NUMBERED: Final = re.compile(r"([0-9]{19})\.(.+)", re.DOTALL)

FAILPOINTS: Final = tuple(
    f"bank-gateway.file_rail.{where}"
    for where in ("out.after_write", "out.after_rename", "in.after_number", "in.after_take", "in.after_list", "in.after_move")
)


class FileRail:
    """One bank's shared folders."""

    def __init__(
        self,
        folder: Path,
        *,
        release_order: Callable[[str, bytes, str], Awaitable[bytes]],
        quarantined: Callable[[Sequence[int]], Awaitable[Collection[int]]],
        look_seconds: float,
    ) -> None:
        """`release_order` is the file that releases a hold, always the same; `quarantined` says which of some places the database has in quarantine.

        Raises:
            OSError: the folders cannot be made.
        """
        self._folder = folder
        self._release_order = release_order
        self._quarantined = quarantined
        self._look_seconds = look_seconds
        #: Places up to here were moved out of `taken`, as far as this process knows.
        self._settled: int | None = None
        # Declared where the rail is used: nothing leads through them in a gateway that speaks over another one.
        declare(*FAILPOINTS)
        for name in FOLDERS:
            (folder / name).mkdir(mode=0o750, parents=True, exist_ok=True)
        _sweep(folder / "out")

    # -- Out ---------------------------------------------------------------------------------------------------------

    async def hand_over(self, requests: Sequence[Request]) -> Sequence[Handover]:
        """Put messages and releases into `out`. What lies there under the same key is the same message, whatever mark this one bears."""
        handovers = [await self._put(each) for each in requests]
        try:
            # Also of those that lay there: their names may not have been made durable by whoever put them there.
            await _in_thread(_sync_folder, self._folder / "out")
        except OSError as error:
            return [NoAnswer(f"{type(error).__name__}: {error.strerror}")] * len(requests)
        return handovers

    async def _put(self, request: Request) -> Handover:
        """Put one file under its name, which is not durable yet."""
        if _KEY.fullmatch(request.idempotency_key) is None:
            raise ValueError("an idempotency key that is no file's name")
        if isinstance(request, Message):
            octets = request.octets
        else:
            octets = await self._release_order(request.uetr, request.key, request.idempotency_key)
        final = self._folder / "out" / f"{request.idempotency_key}.xml"
        # A name of its own: another gateway may be writing the same message.
        part = final.with_name(f".{final.name}.{secrets.token_hex(8)}.part")
        try:
            if not await _in_thread(final.exists):
                await _in_thread(_write_durably, part, octets)
                await failpoint("bank-gateway.file_rail.out.after_write")
                await _in_thread(part.replace, final)
                await failpoint("bank-gateway.file_rail.out.after_rename")
        except OSError as error:
            return NoAnswer(f"{type(error).__name__}: {error.strerror}")
        return Accepted()

    # -- In ----------------------------------------------------------------------------------------------------------

    async def receive(self, after: int, wait_seconds: float) -> Sequence[Delivery]:
        """Number what came, and read what lies after a place; looks again until there is something, or the time is over."""
        clock = asyncio.get_running_loop().time
        give_up = clock() + wait_seconds
        while True:
            try:
                async with self._alone():
                    await self._settle(after)
                    await self._number(after)
                    found = await _in_thread(self._after, after)
                    await failpoint("bank-gateway.file_rail.in.after_list")
                    if found:
                        # What is stored from here on is never found in `in` again.
                        for name in ("taken", "in"):
                            await _in_thread(_sync_folder, self._folder / name)
                    deliveries = [await _in_thread(_read, number, path) for number, path in found[:DELIVERIES_MAX]]
            except OSError as error:
                raise MailboxUnavailable(f"{type(error).__name__}: {error.strerror}") from error
            if deliveries or clock() >= give_up:
                return deliveries
            await asyncio.sleep(min(self._look_seconds, max(0.0, give_up - clock())))

    async def acknowledge(self, upto: int) -> None:
        """Move what is stored out of `taken`."""
        try:
            async with self._alone():
                await self._settle(upto)
        except OSError as error:
            raise MailboxUnavailable(f"{type(error).__name__}: {error.strerror}") from error

    async def close(self) -> None:
        """Nothing is open."""

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """While no other gateway works in these folders. The lock ends with the process that holds it."""
        descriptor = os.open(self._folder / "taken" / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            clock = asyncio.get_running_loop().time
            give_up = clock() + LOCK_SECONDS_MAX
            while not _locked(descriptor):
                if clock() >= give_up:
                    raise TimeoutError(errno.ETIMEDOUT, "another gateway holds the folders")
                await asyncio.sleep(LOCK_PAUSE_SECONDS)
            yield
        finally:
            os.close(descriptor)

    async def _number(self, after: int) -> None:
        """Take what is whole in `in`, in the order of names."""
        names = await _in_thread(_whole, self._folder / "in")
        if not names:
            return
        number = max(after, await _in_thread(self._highest))
        for name in names:
            number += 1
            # Noted first: whoever comes after a death here gives other numbers.
            await _in_thread(_note, self._folder / "taken", number)
            await failpoint("bank-gateway.file_rail.in.after_number")
            source, target = self._folder / "in" / name, self._folder / "taken" / f"{number:019d}.{_kept(name)}"
            await _in_thread(source.replace, target)
            await failpoint("bank-gateway.file_rail.in.after_take")

    def _highest(self) -> int:
        """The highest number that was ever given here."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int((self._folder / "taken" / ".number").read_text(encoding="ascii"))
        # Nobody noted one, or the note is lost: the files know.
        return max((number for folder in FOLDERS[2:] for number, _ in _numbered(self._folder / folder)), default=0)

    def _after(self, after: int) -> list[tuple[int, Path]]:
        """Files after a place, in order. Those that were moved already are looked for only where the database was set back."""
        if self._settled is None:
            self._settled = max((number for folder in FOLDERS[3:] for number, _ in _numbered(self._folder / folder)), default=0)
        folders = FOLDERS[2:] if after < self._settled else FOLDERS[2:3]
        self._settled = max(self._settled, after)
        return sorted(item for folder in folders for item in _numbered(self._folder / folder) if item[0] > after)

    async def _settle(self, upto: int) -> None:
        """Move what is stored up to a place into the archive, and what is quarantined into its folder."""
        stored = [item for item in await _in_thread(lambda: sorted(_numbered(self._folder / "taken"))) if item[0] <= upto]
        if not stored:
            return
        quarantined = await self._quarantined([number for number, _ in stored])
        for number, path in stored:
            target = self._folder / ("quarantine" if number in quarantined else "archive") / path.name
            await _in_thread(path.replace, target)
            await failpoint("bank-gateway.file_rail.in.after_move")
        for folder in FOLDERS[2:]:
            await _in_thread(_sync_folder, self._folder / folder)


async def _in_thread(step: Callable[..., _Result], *arguments: object) -> _Result:
    """A step in a thread. Whoever is cancelled waits for its end, so that no step goes on after the lock was given back."""
    running = asyncio.ensure_future(asyncio.to_thread(step, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_durably(path: Path, octets: bytes) -> None:
    """A new file, whole on the disk. The bank reads it by its group."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    with os.fdopen(descriptor, "wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _note(taken: Path, number: int) -> None:
    part = taken / ".number.part"
    _write_durably(part, b"%d\n" % number)
    part.replace(taken / ".number")
    _sync_folder(taken)


def _sweep(out: Path) -> None:
    """Remove what gateways that died left half-written."""
    for path in out.glob(".*.part"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > LEFT_SECONDS:
                path.unlink()


def _kept(name: str) -> str:
    """As much of a name as fits behind a number."""
    return os.fsdecode(os.fsencode(name)[:NAME_OCTETS_MAX])


def _whole(folder: Path) -> list[str]:
    """Names of files that are there as a whole, sorted."""
    with os.scandir(folder) as entries:
        names = [
            entry.name
            for entry in entries
            if not entry.name.startswith(".") and not entry.name.endswith(_UNFINISHED) and entry.is_file(follow_symlinks=False)
        ]
    return sorted(names)


def _numbered(folder: Path) -> Iterator[tuple[int, Path]]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        found = _NUMBERED.fullmatch(name)
        if found is not None:
            yield int(found.group(1)), folder / name


def _read(number: int, path: Path) -> Delivery:
    """A file as a delivery; one that cannot be read is damaged."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return Delivery(number, b"", "is no file")
            return Delivery(number, file.read(OCTETS_READ_MAX))
    except OSError as error:
        return Delivery(number, b"", f"cannot be read ({errno.errorcode.get(error.errno or 0, 'unknown')})")
