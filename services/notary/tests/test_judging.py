"""What a checkpoint is worth: every way in which a log can cheat is told from a log that grows, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from witness_world import NAME, ORIGIN, leaves_of

from lockstep_kit import merkle, notes
from lockstep_kit.ids import Digest
from lockstep_kit.notes import NOTE_BYTES_MAX, Checkpoint
from lockstep_testkit.factories import KEYS_FROM, key_of
from notary.witness.judging import (
    EMPTY,
    Alarm,
    Cosign,
    Log,
    NothingNew,
    ProofNeeded,
    Rule,
    Seen,
    judge_note,
    judge_proof,
    read_note,
)

KEY, OLD, OTHER = key_of("event-journal"), key_of("event-journal-before"), key_of("mallory")
LOG = Log(ORIGIN, (OLD.public, KEY.public))


def seen(leaves: list[Digest]) -> Seen:
    return Seen(len(leaves), merkle.root(leaves))


def note(leaves: list[Digest], *, origin: str = ORIGIN, by: tuple[str, ...] = ("event-journal",)) -> bytes:
    checkpoint = Checkpoint(origin, len(leaves), merkle.root(leaves))
    lines = tuple(notes.sign(checkpoint, key_of(each)).signatures[0] for each in by)
    return notes.SignedCheckpoint(checkpoint, lines).note


def judged(last: list[Digest], shown: list[Digest], path: tuple[bytes, ...] | None = None, *, refused: bool = False) -> object:
    """The verdict about a log that shows these leaves, with the right proof unless another is given."""
    found = judge_note(seen(last) if last else EMPTY, note(shown), LOG)
    if not isinstance(found, ProofNeeded):
        return found
    if path is None and not refused:
        path = merkle.consistency_path(shown, len(last))
    return judge_proof(seen(last), found.signed, None if refused else path)


def rule(verdict: object) -> Rule:
    assert isinstance(verdict, Alarm), verdict
    assert verdict.message
    return verdict.rule


@given(st.integers(0, 70), st.integers(0, 70))
def test_a_log_that_grows_is_cosigned(before: int, more: int) -> None:
    """Any tree that begins with the last one is cosigned; the same tree again is nothing new."""
    leaves = leaves_of(before + more)
    found = judged(leaves[:before], leaves)
    assert found == NothingNew() if more == 0 else isinstance(found, Cosign)


@given(st.integers(1, 40), st.integers(0, 40), st.data())
def test_a_log_that_forks_is_a_split(before: int, more: int, data: st.DataObject) -> None:
    """A tree in which one of the leaves that were cosigned is another is a split, whatever proof of its own it shows."""
    last, changed = leaves_of(before), data.draw(st.integers(0, before - 1))
    shown = leaves_of(before + more)
    shown[changed] = merkle.leaf_hash(b"another")
    assert rule(judged(last, shown)) is Rule.LOG_SPLIT


@given(st.integers(1, 70), st.integers(0, 70))
def test_a_log_that_shrinks(size: int, less: int) -> None:
    """A smaller tree is a shrunken log, though the last one begins with it."""
    leaves = leaves_of(size)
    fewer = leaves[: max(0, size - 1 - less)]
    assert rule(judged(leaves, fewer)) is Rule.LOG_SHRUNKEN
    assert rule(judge_note(seen(leaves), None, LOG)) is Rule.LOG_SHRUNKEN


def test_nothing_to_witness_yet() -> None:
    """A journal without a checkpoint, or with an empty tree, is nothing new to a witness that has seen nothing."""
    assert judge_note(EMPTY, None, LOG) == NothingNew()
    assert judge_note(EMPTY, note([]), LOG) == NothingNew()
    forged = notes.sign(Checkpoint(ORIGIN, 0, Digest(bytes(32))), KEY).note
    assert rule(judge_note(EMPTY, forged, LOG)) is Rule.LOG_SPLIT


@pytest.mark.parametrize(
    "bend",
    [
        lambda path: path[:-1],
        lambda path: (*path, path[0]),
        lambda path: path[::-1],
        lambda _: (),
        lambda path: (bytes(32), *path[1:]),
        lambda path: (path[0] + path[1][:1], path[1][1:], *path[2:]),
        lambda path: (b"", *path),
        lambda path: path * 100,
    ],
)
def test_a_wrong_proof(bend: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]) -> None:
    """A proof that is not exactly the proof of these sizes is none."""
    leaves = leaves_of(13)
    path = bend(merkle.consistency_path(leaves, 6))
    assert rule(judged(leaves[:6], leaves, path)) is Rule.LOG_SPLIT


def test_a_proof_of_other_sizes() -> None:
    """A proof between two other sizes of the same log shows nothing."""
    leaves = leaves_of(20)
    for before in (1, 5, 7, 8, 19):
        if merkle.consistency_path(leaves, before) != merkle.consistency_path(leaves, 6):
            assert rule(judged(leaves[:6], leaves, merkle.consistency_path(leaves, before))) is Rule.LOG_SPLIT


def test_a_refused_proof() -> None:
    """A journal that answers, and does not show what it has to, is refused."""
    leaves = leaves_of(9)
    assert rule(judged(leaves[:4], leaves, refused=True)) is Rule.PROOF_MISSING


@pytest.mark.parametrize(
    "octets",
    [
        b"", b"\xff\xfe", b"no note", b"\n\n\n", note(leaves_of(3))[:-1], note(leaves_of(3)).replace(b"\n3\n", b"\n03\n"),
        note(leaves_of(3)).replace(b"\n3\n", b"\n-3\n"), note(leaves_of(3)) + b"x" * NOTE_BYTES_MAX, note(leaves_of(3)).replace(b"\n\n", b"\nmore\n\n"),
    ],
)  # fmt: skip
def test_what_is_no_note(octets: bytes) -> None:
    """What is no signed checkpoint in its one form is malformed."""
    assert rule(judge_note(EMPTY, octets, LOG)) is Rule.NOTE_MALFORMED


def test_another_log() -> None:
    """A checkpoint of another log is refused, though the journal's own key has signed it."""
    assert rule(judge_note(EMPTY, note(leaves_of(3), origin="lockstep.local/other"), LOG)) is Rule.ORIGIN_DIFFERS


def test_signatures() -> None:
    """One signature of any key that is valid now is enough; what others have signed is not handed on."""
    leaves = leaves_of(3)
    assert rule(judge_note(EMPTY, note(leaves, by=("mallory",)), LOG)) is Rule.SIGNATURE_INVALID
    forged = note(leaves).replace(b"\n3\n", b"\n4\n")
    assert rule(judge_note(EMPTY, forged, LOG)) is Rule.SIGNATURE_INVALID
    assert rule(judge_note(EMPTY, note(leaves), Log(ORIGIN, ()))) is Rule.SIGNATURE_INVALID
    both = read_note(note(leaves, by=("mallory", "event-journal-before", "event-journal", "event-journal")), LOG)
    assert isinstance(both, notes.SignedCheckpoint)
    assert both.note == note(leaves, by=("event-journal-before", "event-journal"))
    assert not both.signed_by(ORIGIN, OTHER.public)


def test_a_cosigned_note_is_read_again() -> None:
    """What is handed on is a note that anybody can parse, however many signatures the journal showed."""
    crowded = read_note(note(leaves_of(3), by=("event-journal", *["mallory"] * (notes.SIGNATURES_MAX - 1))), LOG)
    assert isinstance(crowded, notes.SignedCheckpoint)
    cosigned = notes.cosign(crowded, NAME, key_of("notary"), KEYS_FROM)
    assert notes.parse(cosigned.note).cosigned_at(NAME, key_of("notary").public) == KEYS_FROM
