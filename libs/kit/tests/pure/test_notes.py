"""Signed notes: written as C2SP says, read in one form only, and valid for the key that they name alone."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep_kit.ids import Digest, sha256
from lockstep_kit.notes import Checkpoint, NoteInvalid, NoteSignature, SignedCheckpoint, cosign, key_hash, parse, sign
from lockstep_kit.signing import PublicKey, SigningKey

LOG, WITNESS, OTHER = SigningKey(b"\x01" * 32), SigningKey(b"\x02" * 32), SigningKey(b"\x03" * 32)
CHECKPOINT = Checkpoint("lockstep.local/journal", 7, sha256(b"root"))
NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


def test_published_key_hash() -> None:
    """The hash of the key in the example of golang.org/x/mod/sumdb/note."""
    coded = base64.b64decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    assert key_hash("PeterNeumann", PublicKey(coded[1:]), coded[:1]).hex() == "c74f20a3"


def test_a_note_is_read_as_written() -> None:
    """Text, signature and cosignature come back, and count for their own names and keys alone."""
    note = cosign(sign(CHECKPOINT, LOG), "lockstep.local/notary", WITNESS, NOW).note
    found = parse(note)
    assert (found.checkpoint, found.note) == (CHECKPOINT, note)
    assert found.signed_by(CHECKPOINT.origin, LOG.public)
    assert found.cosigned_at("lockstep.local/notary", WITNESS.public) == NOW.replace(microsecond=0)
    assert not found.signed_by("lockstep.local/other", LOG.public)
    assert not found.signed_by(CHECKPOINT.origin, OTHER.public)
    assert found.cosigned_at("lockstep.local/notary", LOG.public) is None
    assert found.cosigned_at(CHECKPOINT.origin, WITNESS.public) is None


def test_the_text_is_what_the_standard_says() -> None:
    """Three lines, an empty one, and a line for each signature."""
    lines = cosign(sign(CHECKPOINT, LOG), "w", WITNESS, NOW).note.decode().split("\n")
    assert lines[:4] == ["lockstep.local/journal", "7", base64.b64encode(CHECKPOINT.root).decode(), ""]
    assert [line.rsplit(" ", 1)[0] for line in lines[4:6]] == ["— lockstep.local/journal", "— w"]
    octets = base64.b64decode(lines[5].rsplit(" ", 1)[1])
    assert octets[4:12] == int(NOW.timestamp()).to_bytes(8, "big")
    assert WITNESS.public.verifies(b"cosignature/v1\ntime 1767323045\n" + CHECKPOINT.text, octets[12:])
    assert lines[6:] == [""]


@pytest.mark.parametrize(
    "changed",
    [
        replace(CHECKPOINT, size=8),
        replace(CHECKPOINT, root=sha256(b"another")),
        replace(CHECKPOINT, origin="lockstep.local/journal2"),
    ],
)
def test_a_changed_checkpoint_is_signed_by_nobody(changed: Checkpoint) -> None:
    """Signature and cosignature hold for the text that was signed."""
    signed = cosign(sign(CHECKPOINT, LOG), "w", WITNESS, NOW)
    moved = tuple(
        NoteSignature(changed.origin, key_hash(changed.origin, LOG.public, b"\x01"), each.octets)
        if each.name == CHECKPOINT.origin
        else each
        for each in signed.signatures
    )
    shown = SignedCheckpoint(changed, moved)
    assert not shown.signed_by(changed.origin, LOG.public)
    assert shown.cosigned_at("w", WITNESS.public) is None


def test_a_cosignature_is_bound_to_its_time() -> None:
    """Another time than was signed is no cosignature."""
    line = cosign(sign(CHECKPOINT, LOG), "w", WITNESS, NOW).signatures[1]
    later = int((NOW + timedelta(days=1)).timestamp()).to_bytes(8, "big")
    shown = SignedCheckpoint(CHECKPOINT, (replace(line, octets=later + line.octets[8:]),))
    assert shown.cosigned_at("w", WITNESS.public) is None


GOOD = sign(CHECKPOINT, LOG).note
LINE = GOOD.split(b"\n\n")[1]


@pytest.mark.parametrize(
    ("note", "why"),
    [
        (b"", "an empty line"),
        (GOOD[:-1], "lines of signatures"),
        (b"\xff" + GOOD, "UTF-8"),
        (GOOD.replace(b"\n7\n", b"\n07\n"), "leading zeros"),
        (GOOD.replace(b"\n7\n", b"\n-7\n"), "a number"),
        (GOOD.replace(b"\n7\n", b"\n" + str(2**63).encode() + b"\n"), "below 2"),
        (GOOD.replace(b"\n7\n", b"\n7\nextension\n"), "three lines"),
        (b"a b\n7\n" + base64.b64encode(bytes(32)) + b"\n\n" + LINE, "a name"),
        (b"a\n7\n" + base64.b64encode(bytes(31)) + b"\n\n" + LINE, "32 bytes"),
        (b"a\n7\n" + base64.b64encode(bytes(32))[:-2] + b"B=\n\n" + LINE, "its one form"),
        (b"a\n7\n!!\n\n" + LINE, "base64"),
        (GOOD + b"- a AAAA\n", "a dash"),
        (GOOD + "— a AAAA\n".encode(), "4 bytes"),
        (GOOD + LINE * 16, "at most 16"),
        (GOOD + b"x" * 20_000, "at most 16384"),
    ],
)
def test_what_is_no_checkpoint_is_refused(note: bytes, why: str) -> None:
    """Each rule is named."""
    with pytest.raises(NoteInvalid, match=why):
        parse(note)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(octets: bytes) -> None:
    """Nothing else than a refusal comes of bytes that are no note; what is read has one form."""
    try:
        found = parse(octets)
    except NoteInvalid:
        return
    assert found.note == octets


@given(st.integers(0, 2**63 - 1), st.binary(min_size=32, max_size=32))
def test_every_checkpoint_has_a_form(size: int, root: bytes) -> None:
    """What is signed is read back."""
    signed = sign(Checkpoint("a.example/log", size, Digest(root)), LOG)
    assert parse(signed.note) == signed
