"""What a checkpoint that the journal shows is worth, held against the last one that was cosigned. Pure.

A witness cosigns one history of a log: each checkpoint that it cosigns begins with the one before. What does not is kept as an alarm, with the note that
shows it; anybody who has both notes can see for himself that the log was split.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, TypeAlias

from lockstep_kit import merkle, notes
from lockstep_kit.ids import Digest
from lockstep_kit.notes import NoteInvalid, NoteSignature, SignedCheckpoint
from lockstep_kit.signing import PublicKey
from lockstep_kit.values import dataclass

_HASH_BYTES: Final = 32


class Rule(StrEnum):
    """Why nothing is cosigned."""

    #: What it shows is no signed checkpoint.
    NOTE_MALFORMED = "NOTE_MALFORMED"
    #: It is a checkpoint of another log.
    ORIGIN_DIFFERS = "ORIGIN_DIFFERS"
    #: No key of the journal that is valid now has signed it.
    SIGNATURE_INVALID = "SIGNATURE_INVALID"
    #: The log has fewer leaves than it had.
    LOG_SHRUNKEN = "LOG_SHRUNKEN"
    #: The log does not begin with what it had.
    LOG_SPLIT = "LOG_SPLIT"
    #: It does not show that the log begins with what it had.
    PROOF_MISSING = "PROOF_MISSING"
    #: Nothing; but the witness's own database was put back, and what it has cosigned since is not known to it.
    DATABASE_RESTORED = "DATABASE_RESTORED"


@dataclass(frozen=True, slots=True)
class Log:
    """The log that is witnessed."""

    #: Its name, and that of its keys.
    origin: str
    #: Those that are valid now.
    keys: tuple[PublicKey, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """A tree that was cosigned."""

    #: Number of leaves.
    size: int
    #: Root over them.
    root: Digest


#: What every log begins with.
EMPTY: Final = Seen(0, merkle.root([]))


@dataclass(frozen=True, slots=True)
class NothingNew:
    """The log is what it was."""


@dataclass(frozen=True, slots=True)
class ProofNeeded:
    """The log has grown: whether it begins with what was cosigned is still to be shown."""

    #: The checkpoint, with the log's signatures alone.
    signed: SignedCheckpoint


@dataclass(frozen=True, slots=True)
class Cosign:
    """The log continues what was cosigned."""

    #: The checkpoint, with the log's signatures alone.
    signed: SignedCheckpoint


@dataclass(frozen=True, slots=True)
class Alarm:
    """Nothing may be cosigned until a person has looked."""

    #: What is broken.
    rule: Rule
    #: One sentence.
    message: str


#: A witness that has forgotten what it cosigned could cosign a split.
RESTORED: Final = Alarm(Rule.DATABASE_RESTORED, "the notary's database was put back: what was cosigned since is not known here")

NoteVerdict: TypeAlias = NothingNew | ProofNeeded | Cosign | Alarm
ProofVerdict: TypeAlias = Cosign | Alarm


def read_note(note: bytes, log: Log) -> SignedCheckpoint | Alarm:
    """The log's checkpoint in a note, with those signatures alone that the log's keys have made."""
    try:
        signed = notes.parse(note)
    except NoteInvalid as error:
        return Alarm(Rule.NOTE_MALFORMED, f"the journal shows no signed checkpoint: {error}")
    if signed.checkpoint.origin != log.origin:
        return Alarm(Rule.ORIGIN_DIFFERS, f"the journal shows a checkpoint of {signed.checkpoint.origin}, and not of {log.origin}")
    made = tuple(dict.fromkeys(each for each in signed.signatures if _by_log(signed, each, log)))
    if not made:
        return Alarm(Rule.SIGNATURE_INVALID, "no key of the journal that is valid now has signed the checkpoint")
    # What nobody has verified is not handed on under a cosignature.
    return SignedCheckpoint(signed.checkpoint, made)


def _by_log(signed: SignedCheckpoint, line: NoteSignature, log: Log) -> bool:
    alone = SignedCheckpoint(signed.checkpoint, (line,))
    return any(alone.signed_by(log.origin, key) for key in log.keys)


def judge_note(last: Seen, note: bytes | None, log: Log) -> NoteVerdict:
    """A note held against the last tree that was cosigned; None: the journal has no checkpoint."""
    if note is None:
        if last == EMPTY:
            return NothingNew()
        return Alarm(Rule.LOG_SHRUNKEN, f"the journal has no checkpoint, and one with {last.size} leaves was cosigned")
    signed = read_note(note, log)
    if isinstance(signed, Alarm):
        return signed
    shown = signed.checkpoint
    if shown.size < last.size:
        return Alarm(Rule.LOG_SHRUNKEN, f"the journal shows {shown.size} leaves, and {last.size} were cosigned")
    if shown.size == last.size:
        if shown.root == last.root:
            return NothingNew()
        return Alarm(Rule.LOG_SPLIT, f"the journal shows another root over {shown.size} leaves than the one that was cosigned")
    return Cosign(signed) if last == EMPTY else ProofNeeded(signed)


def judge_proof(last: Seen, signed: SignedCheckpoint, path: Sequence[bytes] | None) -> ProofVerdict:
    """A consistency proof from the last tree that was cosigned; None: the journal refuses it."""
    shown = signed.checkpoint
    if path is None:
        return Alarm(
            Rule.PROOF_MISSING, f"the journal does not show that its {shown.size} leaves begin with the {last.size} cosigned"
        )
    # Hashes of other lengths could be cut in two in more than one way.
    whole = all(len(each) == _HASH_BYTES for each in path)
    if not whole or not merkle.consistent(last.size, last.root, shown.size, shown.root, path):
        return Alarm(
            Rule.LOG_SPLIT, f"the journal's {shown.size} leaves are not shown to begin with the {last.size} that were cosigned"
        )
    return Cosign(signed)
