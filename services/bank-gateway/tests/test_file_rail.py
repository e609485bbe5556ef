"""The file rail by itself: what is written is whole, what is read is whole and in order, and a death at any step loses nothing and doubles nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bank_gateway import file_rail
from bank_gateway.file_rail import FAILPOINTS, FOLDERS, FileRail
from bank_gateway.rail import Accepted, Delivery, MailboxUnavailable, Message, NoAnswer, Release
from lockstep_kit import failpoints
from lockstep_kit.failpoints import FailpointRaised

UETR = "0e1c2d3a-1b2c-4d3e-8f4a-5b6c7d8e9f01"


@dataclass
class Store:
    """What the database would know: the place up to which was stored, what was stored, what was quarantined."""

    place: int = 0
    stored: list[bytes] = field(default_factory=list)
    quarantined: set[int] = field(default_factory=set)

    async def among(self, places: Sequence[int]) -> Collection[int]:
        return self.quarantined & set(places)

    def take(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if delivery.cursor > self.place:
                self.place = delivery.cursor
                self.stored.append(delivery.octets)
                if delivery.octets.startswith(b"bad"):
                    self.quarantined.add(delivery.cursor)


def rail_over(folder: Path, store: Store) -> FileRail:
    async def order(uetr: str, key: bytes, name: str) -> bytes:
        return f"{uetr} {key.hex()} {name}".encode()

    return FileRail(folder, release_order=order, quarantined=store.among, look_seconds=0.01)


def files(folder: Path) -> dict[str, list[str]]:
    """Names in each folder, without those that begin with a dot."""
    return {name: sorted(path.name for path in (folder / name).iterdir() if not path.name.startswith(".")) for name in FOLDERS}


async def test_message_is_put_once(tmp_path: Path) -> None:
    """A message lies in `out` under its key, whole; the same again, with a mark or not, changes nothing; taken away, it is put again."""
    rail = rail_over(tmp_path, Store())
    assert await rail.hand_over([Message(b"<a/>", "P1")]) == [Accepted()]
    assert await rail.hand_over([Message(b"<a mark='1'/>", "P1")]) == [Accepted()]
    assert (tmp_path / "out" / "P1.xml").read_bytes() == b"<a/>"
    (tmp_path / "out" / "P1.xml").unlink()
    assert await rail.hand_over([Message(b"<a mark='1'/>", "P1")]) == [Accepted()]
    assert await rail.hand_over([Release(UETR, bytes(2), "I1-release")]) == [Accepted()]
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        "P1.xml": b"<a mark='1'/>",
        "I1-release.xml": f"{UETR} 0000 I1-release".encode(),
    }


async def test_no_folder_is_no_answer(tmp_path: Path) -> None:
    """Where nothing can be written nobody has the message, and nobody says so; where nothing can be read the mailbox is unavailable."""
    rail = rail_over(tmp_path, Store())
    (tmp_path / "out").rmdir()
    (told,) = await rail.hand_over([Message(b"<a/>", "P1")])
    assert isinstance(told, NoAnswer)
    (tmp_path / "in").rmdir()
    with pytest.raises(MailboxUnavailable):
        await rail.receive(0, 0)


@pytest.mark.parametrize("key", ["../P1", "", ".P1", "a/b", "P" * 200])
async def test_key_that_is_no_name(tmp_path: Path, key: str) -> None:
    """A key never leads out of the folder."""
    with pytest.raises(ValueError, match="no file's name"):
        await rail_over(tmp_path, Store()).hand_over([Message(b"<a/>", key)])
    assert files(tmp_path)["out"] == []


async def test_what_is_not_whole_is_left_alone(tmp_path: Path) -> None:
    """Hidden files, .part, .tmp, folders and links are not there yet; what is there comes in the order of names."""
    store = Store()
    rail = rail_over(tmp_path, store)
    for name in ("3.xml", "1.xml", ".hidden", "2.xml.part", "4.tmp"):
        (tmp_path / "in" / name).write_text(name)
    (tmp_path / "in" / "folder").mkdir()
    (tmp_path / "in" / "link").symlink_to("/etc/passwd")
    assert [delivery.octets for delivery in await rail.receive(0, 0)] == [b"1.xml", b"3.xml"]
    (tmp_path / "in" / "2.xml.part").rename(tmp_path / "in" / "2.xml")
    assert [(each.cursor, each.octets) for each in await rail.receive(2, 0)] == [(3, b"2.xml.part")]
    assert set(files(tmp_path)["in"]) == {"4.tmp", "folder", "link"}


async def test_stored_is_archived_and_broken_quarantined(tmp_path: Path) -> None:
    """A file leaves `taken` when it was stored, into the archive or the quarantine, under its number and name."""
    store = Store()
    rail = rail_over(tmp_path, store)
    (tmp_path / "in" / "a.xml").write_text("good")
    (tmp_path / "in" / "b.xml").write_text("bad")
    store.take(await rail.receive(0, 0))
    await rail.acknowledge(store.place)
    assert files(tmp_path) == {
        "out": [], "in": [], "taken": [], "archive": [f"{1:019d}.a.xml"], "quarantine": [f"{2:019d}.b.xml"],
    }  # fmt: skip
    assert await rail.receive(store.place, 0) == []


async def test_database_that_was_set_back_finds_all_again(tmp_path: Path) -> None:
    """From an earlier place the same deliveries come again, from wherever they lie, also to another gateway; new ones get new places."""
    store = Store()
    rail = rail_over(tmp_path, store)
    for number in range(30):
        (tmp_path / "in" / f"{number:02d}").write_text("bad" if number % 3 == 0 else f"message {number}")
    for _ in range(2):
        store.take(await rail.receive(store.place, 0))
        await rail.acknowledge(store.place)
    assert store.place == 30
    for again in (rail, rail_over(tmp_path, store)):
        back = Store(place=10)
        while deliveries := await again.receive(back.place, 0):
            back.take(deliveries)
        assert back.stored == store.stored[10:]
    (tmp_path / "in" / "new").write_text("new")
    assert [(each.cursor, each.octets) for each in await rail.receive(30, 0)] == [(31, b"new")]


async def test_numbers_go_on_without_their_note(tmp_path: Path) -> None:
    """Where the note of the last number is gone, the files and the database's place tell it: no number is given twice."""
    rail = rail_over(tmp_path, Store())
    (tmp_path / "in" / "a").write_text("a")
    assert [each.cursor for each in await rail.receive(7, 0)] == [8]
    (tmp_path / "taken" / ".number").unlink()
    (tmp_path / "in" / "b").write_text("b")
    assert [each.cursor for each in await rail_over(tmp_path, Store()).receive(0, 0)] == [8, 9]


async def test_large_long_and_unreadable(tmp_path: Path) -> None:
    """A file larger than any message is read no further than to see that; a name that fills the file system's limit is cut; what is no file is damaged."""
    rail = rail_over(tmp_path, Store())
    (tmp_path / "in" / "large").write_bytes(b"x" * (file_rail.OCTETS_READ_MAX + 10))
    (tmp_path / "in" / ("n" * 255)).write_text("long")
    (large, long) = await rail.receive(0, 0)
    assert len(large.octets) == file_rail.OCTETS_READ_MAX
    assert long.octets == b"long"
    (tmp_path / "taken" / f"{3:019d}.folder").mkdir()
    assert [each.damage != "" for each in await rail.receive(2, 0)] == [True]


async def test_waits_for_the_first(tmp_path: Path) -> None:
    """A read of empty folders waits, and ends when something comes."""
    rail = rail_over(tmp_path, Store())
    waiting = asyncio.create_task(rail.receive(0, 20))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    (tmp_path / "in" / "a").write_text("a")
    assert [each.octets for each in await asyncio.wait_for(waiting, 60)] == [b"a"]


async def test_two_gateways_number_apart(tmp_path: Path) -> None:
    """Gateways that share the folders see every file under one number, whoever found it; none is lost and none gets two."""
    store = Store()
    rails = [rail_over(tmp_path, store) for _ in range(3)]
    seen: dict[int, bytes] = {}

    async def read(rail: FileRail) -> None:
        for _ in range(20):
            for delivery in await rail.receive(0, 0):
                assert seen.setdefault(delivery.cursor, delivery.octets) == delivery.octets
            await asyncio.sleep(0)

    async def write() -> None:
        for number in range(15):
            part = tmp_path / "in" / f"{number:02d}.part"
            part.write_text(str(number))
            part.rename(tmp_path / "in" / f"{number:02d}")
            await asyncio.sleep(0.005)

    await asyncio.gather(write(), *map(read, rails))
    await read(rails[0])
    assert sorted(seen.values()) == sorted(str(number).encode() for number in range(15))


@asynccontextmanager
async def armed(point: str, nth: int) -> AsyncIterator[None]:
    failpoints.arm(f"{point}=raise@{nth}")
    try:
        yield
    finally:
        failpoints.arm("")


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("point", FAILPOINTS)
async def test_death_at_any_step(tmp_path: Path, point: str, nth: int) -> None:
    """Dead at a step, for the first, second or third time: the next gateway has every message sent and every file stored, once and in order."""
    store = Store()
    rail = rail_over(tmp_path, store)
    for name in ("a", "b", "c", "d"):
        (tmp_path / "in" / name).write_text("bad" if name == "b" else name)
    deaths = 0
    async with armed(point, nth):
        sent: set[str] = set()
        for _ in range(12):
            try:
                for key in ("P1", "P2", "P3"):
                    if key not in sent:
                        assert await rail.hand_over([Message(key.encode(), key)]) == [Accepted()]
                        sent.add(key)
                deliveries = await rail.receive(store.place, 0)
                store.take(deliveries[:1])
                await rail.acknowledge(store.place)
            except FailpointRaised:
                deaths += 1
                rail = rail_over(tmp_path, store)
    assert deaths == 1
    assert store.stored == [b"a", b"bad", b"c", b"d"]
    after = files(tmp_path)
    assert after["out"] == ["P1.xml", "P2.xml", "P3.xml"]
    assert (after["in"], after["taken"]) == ([], [])
    assert [name.partition(".")[2] for name in after["archive"]] == ["a", "c", "d"]
    assert [name.partition(".")[2] for name in after["quarantine"]] == ["b"]


def test_half_written_files_are_swept(tmp_path: Path) -> None:
    """What a gateway that died left half-written goes after a while; what is being written stays."""
    rail_over(tmp_path, Store())
    old, new = tmp_path / "out" / ".P1.xml.0.part", tmp_path / "out" / ".P2.xml.0.part"
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (0, 0))
    rail_over(tmp_path, Store())
    assert not old.exists()
    assert new.exists()


async def test_seeded_bug_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were numbers not noted, one whose file somebody carried away would be given again, and the new file under it passed over."""
    for note, places in ((file_rail._note, [2]), (lambda *_: None, [1])):
        monkeypatch.setattr(file_rail, "_note", note)
        folder = tmp_path / str(places[0])
        rail = rail_over(folder, Store())
        (folder / "in" / "a").write_text("a")
        assert [each.cursor for each in await rail.receive(0, 0)] == [1]
        (folder / "taken" / f"{1:019d}.a").unlink()
        (folder / "in" / "b").write_text("b")
        assert [each.cursor for each in await rail.receive(0, 0)] == places


GATEWAY = """
import asyncio, sys
from pathlib import Path
from bank_gateway.file_rail import FileRail
from bank_gateway.rail import Message
from lockstep_kit import failpoints

folder, journal, armed = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
told = [line.split() for line in journal.read_text().splitlines()] if journal.exists() else []

async def quarantined(places):
    return {int(place) for place, what in told if what == "bad"} & set(places)

async def order(*_):
    return b"release"

async def run():
    rail = FileRail(folder, release_order=order, quarantined=quarantined, look_seconds=0.01)
    failpoints.arm(armed)
    for key in ("P1", "P2"):
        await rail.hand_over([Message(key.encode(), key)])
    while len(told) < 3:
        place = int(told[-1][0]) if told else 0
        for delivery in (await rail.receive(place, 1))[:1]:
            line = [str(delivery.cursor), delivery.octets.decode()]
            with journal.open("a") as file:
                file.write(" ".join(line) + "\\n")
            told.append(line)
        await rail.acknowledge(int(told[-1][0]))
    await rail.acknowledge(int(told[-1][0]))

asyncio.run(run())
"""


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("point", FAILPOINTS)
async def test_killed_at_any_step(tmp_path: Path, point: str, nth: int) -> None:
    """Killed with SIGKILL at a step: the next process has every message sent whole, and every file stored once, in order, in its folder."""
    folder, journal = tmp_path / "shared", tmp_path / "journal"
    for name in ("in", "out"):
        (folder / name).mkdir(parents=True)
    for name in ("a", "bad", "c"):
        (folder / "in" / name).write_text(name)

    async def life(armed: str) -> int:
        command = (sys.executable, "-c", GATEWAY, str(folder), str(journal), armed)
        process = await asyncio.create_subprocess_exec(*command)
        return await asyncio.wait_for(process.wait(), 240)

    assert await life(f"{point}=kill@{nth}") == -signal.SIGKILL
    assert await life("") == 0
    assert [line.split()[1] for line in journal.read_text().splitlines()] == ["a", "bad", "c"]
    after = files(folder)
    assert (after["in"], after["taken"], after["out"]) == ([], [], ["P1.xml", "P2.xml"])
    assert [name.partition(".")[2] for name in after["archive"]] == ["a", "c"]
    assert [name.partition(".")[2] for name in after["quarantine"]] == ["bad"]
    assert {path.read_text() for path in (folder / "out").glob("*.xml")} == {"P1", "P2"}


async def test_cancelled_step_ends_before_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that is stopped in the middle of a step keeps the lock until the step has ended: nobody numbers beside it."""
    rail = rail_over(tmp_path, Store())
    (tmp_path / "in" / "a").write_text("a")
    begun, go_on, noted = threading.Event(), threading.Event(), []
    note = file_rail._note

    def slow(taken: Path, number: int) -> None:
        begun.set()
        assert go_on.wait(60)
        note(taken, number)
        noted.append(number)

    monkeypatch.setattr(file_rail, "_note", slow)
    reading = asyncio.create_task(rail.receive(0, 0))
    await asyncio.to_thread(begun.wait)
    reading.cancel()
    monkeypatch.setattr(file_rail, "_note", note)
    beside = asyncio.create_task(rail_over(tmp_path, Store()).receive(0, 0))
    await asyncio.sleep(0.3)
    assert not beside.done()
    go_on.set()
    assert [each.cursor for each in await beside] == [2]
    assert noted == [1]
    with pytest.raises(asyncio.CancelledError):
        await reading
