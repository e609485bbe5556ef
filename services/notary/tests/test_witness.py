"""The witness against a journal over real mutual TLS, and a real database: what it has cosigned, and what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from structlog.testing import capture_logs
from witness_world import NAME, ORIGIN, WitnessWorld, leaves_of

from lockstep_kit import merkle, notes
from lockstep_kit.errors import LockstepError, precondition, unavailable
from lockstep_kit.ids import Digest
from lockstep_kit.notes import Checkpoint
from lockstep_kit.registry import Participant, RegisteredKey, Registry
from lockstep_testkit.factories import KEYS_FROM, KEYS_UNTIL, key_of
from notary.witness.judging import Rule


async def rules(world: WitnessWorld) -> list[str]:
    return [each["rule"] for each in await world.alarms()]


async def test_an_honest_log(witnessed: WitnessWorld) -> None:
    """Each checkpoint that continues the last one is cosigned and stored once; what was seen before is nothing new."""
    witness = await witnessed.witness()
    await witness.round()
    assert await witnessed.sizes() == []
    for more in (1, 0, 2, 5, 0, 1, 23, 32):
        witnessed.log.grow(more)
        await witness.round()
    assert await witnessed.sizes() == [(1, 1), (1, 3), (1, 8), (1, 9), (1, 32), (1, 64)]
    assert await witnessed.alarms() == []
    assert witnessed.log.asked == [(1, 3), (3, 8), (8, 9), (9, 32), (32, 64)]


def shrunken(world: WitnessWorld) -> None:
    del world.log.leaves[-1]


def emptied(world: WitnessWorld) -> None:
    world.log.absent = True


def forked(world: WitnessWorld) -> None:
    world.log.leaves[2] = merkle.leaf_hash(b"another")
    world.log.grow(4)


def rewritten(world: WitnessWorld) -> None:
    world.log.leaves = leaves_of(7, "another")


def signed_by_another(world: WitnessWorld) -> None:
    world.log.grow(1)
    world.log.key = key_of("mallory")


def renamed(world: WitnessWorld) -> None:
    world.log.origin = "lockstep.local/other"


def garbled(world: WitnessWorld) -> None:
    world.log.note = b"\x00garbage\n\n"


def pending(world: WitnessWorld) -> None:
    world.log.grow(1)
    world.log.refusal = precondition("CHECKPOINT_PENDING", "there is no checkpoint of so many leaves yet")


def refusing(world: WitnessWorld) -> None:
    world.log.grow(1)
    world.log.refusal = LockstepError(grpc.StatusCode.OUT_OF_RANGE, "TREE_SIZE", "not so many")


def proof_of_other_sizes(world: WitnessWorld) -> None:
    world.log.grow(3)
    world.log.proof = lambda _: merkle.consistency_path(world.log.leaves, 5)


def proof_cut(world: WitnessWorld) -> None:
    world.log.grow(3)
    world.log.proof = lambda path: path[:-1]


#: What a journal does, and what it is called.
MISDEEDS: list[tuple[Callable[[WitnessWorld], None], Rule]] = [
    (shrunken, Rule.LOG_SHRUNKEN),
    (emptied, Rule.LOG_SHRUNKEN),
    (forked, Rule.LOG_SPLIT),
    (rewritten, Rule.LOG_SPLIT),
    (proof_of_other_sizes, Rule.LOG_SPLIT),
    (proof_cut, Rule.LOG_SPLIT),
    (signed_by_another, Rule.SIGNATURE_INVALID),
    (renamed, Rule.ORIGIN_DIFFERS),
    (garbled, Rule.NOTE_MALFORMED),
    (refusing, Rule.PROOF_MISSING),
    (pending, Rule.PROOF_MISSING),
]


@pytest.mark.parametrize(("misdeed", "rule"), MISDEEDS)
async def test_a_misdeed(witnessed: WitnessWorld, misdeed: Callable[[WitnessWorld], None], rule: Rule) -> None:
    """What continues nothing raises one alarm that holds both notes, is told at once, and nothing is cosigned after it: not even what is honest again."""
    witness = await witnessed.witness()
    witnessed.log.grow(7)
    await witness.round()
    cosigned = witnessed.log.checkpoint().note
    honest, key = list(witnessed.log.leaves), witnessed.log.key
    misdeed(witnessed)
    shown = None if witnessed.log.absent else witnessed.log.note or witnessed.log.checkpoint().note
    with capture_logs() as logs:
        await witness.round()
        await witness.round()
    assert await rules(witnessed) == [rule.value]
    assert [each["rule"] for each in logs if each["event"] == "witness_alarm"] == [rule.value]
    (alarm,) = await witnessed.alarms()
    assert alarm["refused_note"] == shown
    assert alarm["cosigned_note"].startswith(cosigned)
    # As if nothing had been.
    log = witnessed.log
    log.leaves, log.key, log.origin, log.note, log.absent, log.proof, log.refusal = honest, key, ORIGIN, None, False, tuple, None
    log.grow(9)
    for each in (witness, await witnessed.witness()):
        await each.round()
    assert await witnessed.sizes() == [(1, 7)]
    assert await rules(witnessed) == [rule.value]


async def test_a_first_checkpoint_is_judged_too(witnessed: WitnessWorld) -> None:
    """A witness that has seen nothing asks for no proof, and yet for a note of the log."""
    witnessed.log.grow(3)
    witnessed.log.key = key_of("mallory")
    await (await witnessed.witness()).round()
    assert await rules(witnessed) == ["SIGNATURE_INVALID"]
    assert await witnessed.sizes() == []
    assert (await witnessed.alarms())[0]["cosigned_note"] is None


async def test_silence_is_no_alarm(witnessed: WitnessWorld) -> None:
    """A journal that is slow, away, or says that it will answer later has broken nothing: it is asked again, and silence that lasts is told of once."""
    witness = await witnessed.witness(call_seconds=60.0, silence_seconds=0.3)
    patient, hasty = witness._journal, await witnessed.journal_log(call_seconds=0.2)
    witnessed.log.grow(2)
    await witness.round()
    witnessed.log.grow(2)
    with capture_logs() as logs:
        # Only what is never answered is given up soon: what is answered may take as long as the machine needs.
        witnessed.log.delay_seconds, witness._journal = 600.0, hasty
        for _ in range(4):
            await witness.round()
        witness._journal = patient
        witnessed.log.delay_seconds, witnessed.log.unavailable = 0.0, True
        await witness.round()
        witnessed.log.unavailable, witnessed.log.refusal = False, unavailable("DATABASE_UNAVAILABLE", "later")
        await witness.round()
        assert await witnessed.sizes() == [(1, 2)]
        witnessed.log.refusal = None
        await witness.round()
    assert [each["event"] for each in logs if each["log_level"] != "debug"] == [
        "journal_unanswered",
        "journal_silent",
        "journal_answers_again",
    ]
    assert await witnessed.alarms() == []
    assert await witnessed.sizes() == [(1, 2), (1, 4)]


async def test_a_stranger_may_not_ask(witnessed: WitnessWorld) -> None:
    """A refusal to talk to this witness says nothing of the log."""
    witnessed.log.grow(1)
    await (await witnessed.witness(caller="spiffe://lockstep.local/dlt-gateway")).round()
    assert await witnessed.alarms() == []
    assert await witnessed.sizes() == []


async def test_a_rotated_key(witnessed: WitnessWorld) -> None:
    """While two keys are valid, either signs; one whose time is over, or has not come, signs nothing."""
    before, after = key_of("event-journal-1"), key_of("event-journal-2")
    now = datetime.now(UTC)
    hour = timedelta(hours=1)

    def registered(*keys: RegisteredKey) -> Registry:
        return Registry([], [Participant("event-journal", keys)])

    both = registered(RegisteredKey(before.public, KEYS_FROM, now + hour), RegisteredKey(after.public, now - hour, KEYS_UNTIL))
    witnessed.registry = both
    witness = await witnessed.witness()
    for key in (before, after, before, after):
        witnessed.log.key = key
        witnessed.log.grow(2)
        await witness.round()
    assert await witnessed.sizes() == [(1, 2), (1, 4), (1, 6), (1, 8)]
    witnessed.log.key = before
    witnessed.log.grow(1)
    over = registered(RegisteredKey(before.public, KEYS_FROM, now - hour), RegisteredKey(after.public, now + hour, KEYS_UNTIL))
    await (await witnessed.witness(registry=over)).round()
    assert await rules(witnessed) == ["SIGNATURE_INVALID"]


async def test_replicas_at_once(witnessed: WitnessWorld) -> None:
    """Many witnesses over one database, while the log grows, cosign one history: each size once, and nothing is taken for a misdeed."""
    witnesses = [await witnessed.witness() for _ in range(4)]
    for _ in range(12):
        witnessed.log.grow(3)
        await asyncio.gather(*(each.round() for each in witnesses for _ in range(2)))
    assert await witnessed.alarms() == []
    sizes = await witnessed.sizes()
    assert sizes[-1] == (1, 36)
    assert sizes == sorted(set(sizes))


async def test_overtaken(witnessed: WitnessWorld) -> None:
    """A witness that was overtaken between its question and its conclusion concludes nothing: neither a shrunken log nor a split."""
    slow, fast = await witnessed.witness(), await witnessed.witness()
    witnessed.log.grow(4)
    await slow.round()

    async def meanwhile() -> None:
        witnessed.log.before_answer = None
        witnessed.log.grow(4)
        await fast.round()

    witnessed.log.grow(1)
    witnessed.log.before_answer = meanwhile
    await slow.round()
    assert await witnessed.alarms() == []
    assert await witnessed.sizes() == [(1, 4), (1, 9)]


async def test_two_journals(witnessed: WitnessWorld) -> None:
    """Of two histories that are shown to two witnesses at once, one is cosigned, and the other is an alarm."""
    one, other = await witnessed.witness(), await witnessed.witness()
    witnessed.log.grow(4)
    await one.round()
    shown: list[list[Digest]] = [leaves_of(4) + leaves_of(6, salt)[4:] for salt in ("x", "y")]
    turn = iter(shown)

    async def turns() -> None:
        await asyncio.sleep(0.05)

    witnessed.log.before_answer = turns
    for witness in (one, other):
        witnessed.log.leaves = next(turn)
        await witness.round()
    assert await witnessed.sizes() == [(1, 4), (1, 6)]
    assert await rules(witnessed) == ["LOG_SPLIT"]


async def test_anchors_are_asked_for(witnessed: WitnessWorld) -> None:
    """The newest root is asked to be anchored, at most once in a while, once, and in the end even if the log has stopped growing."""
    patient, eager = await witnessed.witness(anchor_seconds=3600), await witnessed.witness()
    await patient.round()
    assert witnessed.anchored == []
    for _ in range(3):
        witnessed.log.grow(2)
        await patient.round()
    assert [size for _, size in witnessed.anchored] == [2]
    await eager.round()
    await eager.round()
    assert witnessed.anchored == [(merkle.root(leaves_of(2)), 2), (merkle.root(leaves_of(6)), 6)]


async def test_an_anchor_that_cannot_be_asked_for(witnessed: WitnessWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint and the request for its anchor are stored together, or neither is."""
    witness = await witnessed.witness()

    async def refuses(*_: object) -> None:
        raise TimeoutError

    witnessed.log.grow(2)
    with monkeypatch.context() as patch:
        patch.setattr(witnessed, "request", refuses)
        with pytest.raises(TimeoutError):
            await witness.round()
    assert await witnessed.sizes() == []
    await (await witnessed.witness()).round()
    assert await witnessed.sizes() == [(1, 2)]
    assert [size for _, size in witnessed.anchored] == [2]


async def test_other_signatures_are_not_handed_on(witnessed: WitnessWorld) -> None:
    """A note that others have signed too is cosigned without their signatures, which nobody has verified."""
    witnessed.log.grow(2)
    signed = witnessed.log.checkpoint()
    other = notes.sign(Checkpoint(NAME, 2, signed.checkpoint.root), key_of("mallory")).signatures[0]
    witnessed.log.note = replace(signed, signatures=(other, *signed.signatures)).note
    await (await witnessed.witness()).round()
    async with witnessed.database.as_owner() as connection:
        stored = await connection.fetchval("select signed_note from witness_checkpoint")
    assert [each.name for each in notes.parse(stored).signatures] == [ORIGIN, NAME]
