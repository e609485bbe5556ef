"""A judge that finds no seeded bug finds no bug: a witness with one rule broken cosigns what it must not, and that is seen."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest
from test_witness import MISDEEDS
from witness_world import WitnessWorld, leaves_of

from lockstep_kit import merkle, notes
from lockstep_kit.ids import Digest
from lockstep_kit.notes import Checkpoint, SignedCheckpoint
from notary.witness import judging, store, witnessing
from notary.witness.judging import Cosign, NothingNew, Rule, Seen


async def contradictions(world: WitnessWorld) -> list[str]:
    """What is wrong with what was cosigned, held against every tree that the journal has ever shown: a judge that knows the leaves."""
    async with world.database.as_owner() as connection:
        rows = await connection.fetch("select * from witness_checkpoint order by history, tree_size")
        alarms = await connection.fetchval("select count(*) from witness_alarm")
    wrong = [
        f"{row['tree_size']} leaves of another history"
        for row in rows
        if row["root_hash"] != merkle.root(leaves_of(row["tree_size"]))
    ]
    return wrong if alarms or wrong else ["no alarm"]


async def misled(world: WitnessWorld, misdeed: Any) -> list[str]:
    """The contradictions of a witness whose journal was honest, and then is not, and grows on."""
    witness = await world.witness()
    world.log.grow(7)
    await witness.round()
    misdeed(world)
    for _ in range(2):
        await witness.round()
        world.log.grow(1)
    return await contradictions(world)


@pytest.mark.parametrize(("misdeed", "rule"), MISDEEDS)
async def test_nothing_is_wrong_without_a_bug(witnessed: WitnessWorld, misdeed: Any, rule: Rule) -> None:
    """The judge finds nothing where no rule is broken."""
    assert await misled(witnessed, misdeed) == [], rule


def forked(world: WitnessWorld) -> None:
    world.log.leaves[2] = merkle.leaf_hash(b"another")
    world.log.grow(4)


def rewritten(world: WitnessWorld) -> None:
    world.log.leaves[2] = merkle.leaf_hash(b"another")


async def test_skipping_the_proof_is_seen(witnessed: WitnessWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A witness that does not check the consistency proof cosigns a split."""

    def unchecked(last: Seen, signed: SignedCheckpoint, path: Sequence[bytes] | None) -> Cosign:
        del last, path
        return Cosign(signed)

    monkeypatch.setattr(judging, "judge_proof", unchecked)
    assert await misled(witnessed, forked) != []


async def test_taking_the_same_size_for_the_same_tree_is_seen(witnessed: WitnessWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A witness that compares sizes and not roots is silent about a rewritten log."""
    right = judging.judge_note

    def of_sizes(last: Seen, note: bytes | None, log: judging.Log) -> judging.NoteVerdict:
        found = right(last, note, log)
        signed = judging.read_note(note or b"", log)
        same = isinstance(signed, SignedCheckpoint) and signed.checkpoint.size == last.size
        return NothingNew() if same else found

    witness = await witnessed.witness()
    witnessed.log.grow(7)
    await witness.round()
    monkeypatch.setattr(judging, "judge_note", of_sizes)
    rewritten(witnessed)
    await witness.round()
    assert await contradictions(witnessed) == ["no alarm"]


async def test_taking_a_smaller_tree_is_seen(witnessed: WitnessWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A witness that would cosign a shrunken log is stopped by its database."""
    right = judging.judge_note

    def any_size(last: Seen, note: bytes | None, log: judging.Log) -> judging.NoteVerdict:
        signed = judging.read_note(note or b"", log)
        return Cosign(signed) if isinstance(signed, SignedCheckpoint) else right(last, note, log)

    witness = await witnessed.witness()
    witnessed.log.grow(7)
    await witness.round()
    monkeypatch.setattr(judging, "judge_note", any_size)
    del witnessed.log.leaves[-1]
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="only grows"):
        await witness.round()
    assert await witnessed.sizes() == [(1, 7)]


async def test_concluding_without_looking_again_is_seen(witnessed: WitnessWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A witness that, once overtaken, concludes from what it had read before its question would take an honest log for a split, or cosign it twice."""
    slow, fast = await witnessed.witness(), await witnessed.witness()
    witnessed.log.grow(4)
    await slow.round()
    monkeypatch.setattr(store.Standing, "place", (0, 0, None))

    async def meanwhile() -> None:
        witnessed.log.before_answer = None
        witnessed.log.grow(4)
        await fast.round()

    witnessed.log.grow(1)
    witnessed.log.before_answer = meanwhile
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await slow.round()


class Shown:
    """A verifier somewhere, who was shown cosignatures."""

    def __init__(self) -> None:
        self.checkpoints: list[Checkpoint] = []

    def split(self) -> bool:
        """Whether two of them contradict each other."""
        trees = {(each.size, each.root) for each in self.checkpoints}
        return len({size for size, _ in trees}) < len(trees)


async def test_showing_before_storing_is_seen(witnessed: WitnessWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A witness that shows a cosignature before it is stored, and dies between the two, cosigns both sides of a split; one that stores it first does not."""
    shown = Shown()
    right = notes.cosign

    def showing(*arguments: Any) -> SignedCheckpoint:
        signed = right(*arguments)
        shown.checkpoints.append(signed.checkpoint)
        return signed

    async def dies(_: str) -> None:
        raise asyncio.CancelledError

    def other_side() -> list[Digest]:
        return [*leaves_of(4), *leaves_of(6, "another")[4:]]

    witness = await witnessed.witness()
    witnessed.log.grow(4)
    await witness.round()
    witnessed.log.grow(2)
    with monkeypatch.context() as patch:
        patch.setattr(notes, "cosign", showing)
        patch.setattr(witnessing, "failpoint", dies)
        with pytest.raises(asyncio.CancelledError):
            await witness.round()
    witnessed.log.leaves = other_side()
    with monkeypatch.context() as patch:
        patch.setattr(notes, "cosign", showing)
        await witness.round()
    # What was shown before it was stored contradicts what was stored after the crash.
    assert shown.split()
    # What is stored does not, and it is all that is served.
    assert await witnessed.sizes() == [(1, 4), (1, 6)]
