"""After an alarm a person looks, and has the witness go on: from what it had cosigned, or from what the journal shows now. The break stays on record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from test_witness import forked, garbled, shrunken
from witness_world import WitnessWorld

from lockstep_kit import merkle
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.migrate import renew_logs
from lockstep_testkit.factories import key_of
from notary.witness.acknowledging import Desk, main
from notary.witness.judging import EMPTY, Seen
from notary.witness.settings import WitnessSettings


async def desk(world: WitnessWorld) -> Desk:
    settings = WitnessSettings(journal=world.journal.target)
    return Desk(world.db, await world.journal_log(), world.cosigner, world.registry, settings)


async def alarmed(world: WitnessWorld, misdeed: Callable[[WitnessWorld], None]) -> bytes:
    """Root of what was cosigned last, before the misdeed."""
    witness = await world.witness()
    world.log.grow(7)
    await witness.round()
    root = merkle.root(world.log.leaves)
    misdeed(world)
    await witness.round()
    assert len(await world.alarms()) == 1
    return root


async def test_going_on_from_what_was_cosigned(witnessed: WitnessWorld) -> None:
    """Once a person has looked, the log has to continue what was cosigned: what still does not is an alarm again."""
    root = await alarmed(witnessed, garbled)
    assert await (await desk(witnessed)).acknowledge(root, "a proxy's page", follow=False) == ""
    witness = await witnessed.witness()
    await witness.round()
    assert [each["finding"] for each in await witnessed.alarms()] == ["a proxy's page", None]
    assert await (await desk(witnessed)).acknowledge(root, "again", follow=False) == ""
    witnessed.log.note = None
    witnessed.log.grow(2)
    await witness.round()
    assert await witnessed.sizes() == [(1, 7), (1, 9)]
    assert [each["follows"] for each in await witnessed.alarms()] == [None, None]


@pytest.mark.parametrize("misdeed", [shrunken, forked])
async def test_following_a_journal_that_was_put_back(witnessed: WitnessWorld, misdeed: Callable[[WitnessWorld], None]) -> None:
    """What the journal shows now is cosigned as a new history, which is held to its own history from then on; the old one stays."""
    await alarmed(witnessed, misdeed)
    shown, size = merkle.root(witnessed.log.leaves), len(witnessed.log.leaves)
    assert await (await desk(witnessed)).acknowledge(shown, "put back to noon", follow=True) == ""
    assert await witnessed.sizes() == [(1, 7), (2, size)]
    (alarm,) = await witnessed.alarms()
    assert (alarm["finding"], alarm["follows"]) == ("put back to noon", 2)
    witness = await witnessed.witness()
    witnessed.log.grow(3)
    await witness.round()
    assert await witnessed.sizes() == [(1, 7), (2, size), (2, size + 3)]
    del witnessed.log.leaves[-1]
    await witness.round()
    assert [each["rule"] for each in await witnessed.alarms()][1:] == ["LOG_SHRUNKEN"]


async def test_what_is_not_acknowledged(witnessed: WitnessWorld) -> None:
    """A root that was not shown, an alarm that is not there, a tree that nobody could follow: each is refused with a reason, and changes nothing."""
    table = await desk(witnessed)
    assert "no alarm" in await table.acknowledge(EMPTY.root, "x", follow=False)
    root = await alarmed(witnessed, forked)
    shown = merkle.root(witnessed.log.leaves)
    assert root.hex() in await table.acknowledge(shown, "x", follow=False)
    assert shown.hex() in await table.acknowledge(root, "x", follow=True)
    witnessed.log.key = key_of("mallory")
    assert "signed" in await table.acknowledge(shown, "x", follow=True)
    witnessed.log.key, witnessed.log.absent = key_of("event-journal"), True
    assert "no checkpoint" in await table.acknowledge(shown, "x", follow=True)
    witnessed.log.absent = False
    witnessed.log.leaves = []
    witnessed.log.grow(9)
    assert "continues" in await table.acknowledge(merkle.root(witnessed.log.leaves), "x", follow=True)
    assert [each["finding"] for each in await witnessed.alarms()] == [None]
    assert await witnessed.sizes() == [(1, 7)]


async def test_nothing_to_follow(witnessed: WitnessWorld) -> None:
    """Where nothing was cosigned, the first checkpoint is cosigned as any first one, once its alarm was looked at."""
    witnessed.log.grow(3)
    witnessed.log.key = key_of("mallory")
    await (await witnessed.witness()).round()
    table = await desk(witnessed)
    assert "nothing was cosigned" in await table.acknowledge(merkle.root(witnessed.log.leaves), "x", follow=True)
    assert await table.acknowledge(EMPTY.root, "a wrong key was deployed", follow=False) == ""
    witnessed.log.key = key_of("event-journal")
    await (await witnessed.witness()).round()
    assert await witnessed.sizes() == [(1, 3)]


async def test_a_witness_that_was_put_back(witnessed: WitnessWorld) -> None:
    """A witness whose database was put back has forgotten what it cosigned: it cosigns nothing until a person has looked, and then goes on."""
    witness = await witnessed.witness()
    witnessed.log.grow(7)
    await witness.round()
    before = merkle.root(witnessed.log.leaves)
    await asyncio.to_thread(renew_logs, witnessed.database.owner_url)
    witnessed.log.grow(3)
    newer = Seen(10, merkle.root(witnessed.log.leaves))
    for each in (witness, await witnessed.witness()):
        await each.round()
    assert [each["rule"] for each in await witnessed.alarms()] == ["DATABASE_RESTORED"]
    assert await witnessed.sizes() == [(1, 7)]
    table = await desk(witnessed)
    # What is anchored on chain tells whether the log still is what was cosigned.
    assert await table.holds(newer) == ""
    honest = list(witnessed.log.leaves)
    witnessed.log.leaves[8] = merkle.leaf_hash(b"another")
    witnessed.log.grow(2)
    assert "begin with the 10" in await table.holds(newer)
    witnessed.log.leaves = honest
    assert await table.acknowledge(before, "the newest anchored root holds", follow=False) == ""
    witnessed.log.grow(1)
    for _ in range(2):
        await witness.round()
    assert await witnessed.sizes() == [(1, 7), (1, 11)]
    assert len(await witnessed.alarms()) == 1


async def test_somebody_else_was_faster(witnessed: WitnessWorld) -> None:
    """Of two persons who follow at once, one does; the other is told to look again."""
    await alarmed(witnessed, shrunken)
    one, other = await desk(witnessed), await desk(witnessed)
    root = merkle.root(witnessed.log.leaves)

    async def meanwhile() -> None:
        witnessed.log.before_answer = None
        assert await one.acknowledge(root, "first", follow=True) == ""

    witnessed.log.before_answer = meanwhile
    assert "look again" in await other.acknowledge(root, "second", follow=True)
    assert [each["finding"] for each in await witnessed.alarms()] == ["first"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--acknowledge", "00" * 32],
        ["--acknowledge", "00" * 31, "--finding", "x"],
        ["--acknowledge", "00" * 32, "--finding", "  "],
        ["--follow"],
        ["--holds", "x", "00" * 32],
        ["--holds", "3", "00" * 31],
        ["--holds", "3", "00" * 32, "--acknowledge", "00" * 32, "--finding", "x"],
    ],
)
def test_arguments(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An acknowledgement names a root and a finding."""
    with pytest.raises(SystemExit):
        main(["--config", str(tmp_path / "none.yaml"), *arguments])
    assert "--" in capsys.readouterr().err
    with pytest.raises(FieldInvalid):
        main(["--config", str(tmp_path / "none.yaml")])
