"""The fence: what a command may do to a leg at its participant. One pure table, shared by all participants.

Rules, in the order in which they are asked (docs/protocol.md, "Fence"):

1. Another digest than the stored one: Rejected. The digest binds plan digest, leg and lock, nothing else.
2. An epoch older than the stored one: Rejected. A newer one is stored, whatever else becomes of the command, once there is a row to store it in.
3. What the table says for (phase, command). A leg that is not known has the phase None.

A replay changes nothing and gets the stored answer. Rejected changes nothing of the leg and is never an outcome. Prepare after `prepare_by` is
Rejected. Abort of an unknown leg is begun, not answered: the participant first asks outside, and then leaves the tombstone RELEASED, which bars a late
Prepare. Commit of an unknown leg is Rejected, unless the certificate holds this participant's own signed YES, which restores the row. Abort of a
refused leg asks outside once more, so that RELEASED always means: the outside world confirmed that it cannot execute. After COMMIT there is no way back; only a
delegated leg may still be told to abort while it is COMMITTING, and then the outside world decides which of the two happened.

Only what is executed is reversed. Each order to reverse is obeyed once: a Reverse under an order that the row has seen is a replay, however late it
comes, so that a copy that was lost for days cannot undo a plan that was completed after its reversal had been refused.

The other half of the table says where a leg may go by the participant's own findings (`complete`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from lockstep_kit.canonical import digest_of
from lockstep_kit.certificate import Binding, Decision
from lockstep_kit.ids import Digest
from lockstep_kit.values import dataclass, replace


class Phase(StrEnum):
    """Where a leg stands at its participant."""

    PREPARING = "PREPARING"
    PREPARED = "PREPARED"
    REFUSED = "REFUSED"
    COMMITTING = "COMMITTING"
    COMMITTED = "COMMITTED"
    ABORTING = "ABORTING"
    RELEASED = "RELEASED"
    REVERSING = "REVERSING"
    REVERSED = "REVERSED"

    @property
    def final(self) -> bool:
        """Whether only a contradiction, or of COMMITTED a reversal, can still change it."""
        return self in (Phase.REFUSED, Phase.COMMITTED, Phase.RELEASED, Phase.REVERSED)

    @property
    def working(self) -> bool:
        """Whether the participant owes an answer."""
        return self in (Phase.PREPARING, Phase.COMMITTING, Phase.ABORTING, Phase.REVERSING)

    @property
    def executed(self) -> bool:
        """Whether the leg took effect, whatever is being undone about it."""
        return self in (Phase.COMMITTED, Phase.REVERSING)


class Command(StrEnum):
    """What a coordinator can ask."""

    PREPARE = "PREPARE"
    COMMIT = "COMMIT"
    ABORT = "ABORT"
    REVERSE = "REVERSE"


class Finding(StrEnum):
    """What a participant can find out about a leg outside."""

    VOTED_YES = "VOTED_YES"
    VOTED_NO = "VOTED_NO"
    LAPSED = "LAPSED"
    EXECUTED = "EXECUTED"
    REFUSED = "REFUSED"
    RELEASED = "RELEASED"
    REVERSED = "REVERSED"
    REVERSAL_REFUSED = "REVERSAL_REFUSED"


class Epoch(NamedTuple):
    """Fencing token; compares by generation, then counter."""

    #: Raised by every restore of the coordinator's database.
    generation: int
    #: Grows at each take-over.
    counter: int


class Action(StrEnum):
    """What the table says."""

    BEGIN = "BEGIN"
    REPLAY = "REPLAY"
    REJECT = "REJECT"


class Rejected(StrEnum):
    """Why a command changes nothing."""

    DIGEST_MISMATCH = "DIGEST_MISMATCH"
    EPOCH_STALE = "EPOCH_STALE"
    PREPARE_LATE = "PREPARE_LATE"
    LEG_UNKNOWN = "LEG_UNKNOWN"
    LEG_NOT_PREPARED = "LEG_NOT_PREPARED"
    LEG_ABORTING = "LEG_ABORTING"
    LEG_RELEASED = "LEG_RELEASED"
    LEG_DECIDED = "LEG_DECIDED"
    COMMIT_LATE = "COMMIT_LATE"
    LEG_NOT_EXECUTED = "LEG_NOT_EXECUTED"
    LEG_REVERSING = "LEG_REVERSING"
    LEG_REVERSED = "LEG_REVERSED"


@dataclass(frozen=True, slots=True)
class FenceRow:
    """What the fence remembers of a leg."""

    #: Where it stands; None: only the epoch is known (it was raised before any command).
    phase: Phase | None
    #: Plan digest, leg and lock in one; None with phase None.
    digest: Digest | None
    #: Highest token seen.
    epoch: Epoch
    #: Decision that the last accepted Commit carried; None before.
    decision: Decision | None = None
    #: Grows with every change that others can see.
    revision: int = 0
    #: Orders to reverse that were begun, in that order.
    reversals: tuple[Digest, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """A command as the fence sees it."""

    #: What is asked.
    command: Command
    #: Plan digest, leg and lock in one.
    digest: Digest
    #: Token of the sender.
    epoch: Epoch
    #: Prepare: after this it is Rejected. Commit, when delegated: never begun later.
    not_after: datetime | None = None
    #: Commit: the decision that its certificate shows.
    decision: Decision | None = None
    #: Commit: whether its certificate holds this participant's own signed YES for this leg.
    own_yes: bool = False
    #: Reverse: digest of the order that it carries out; None: there can be only one.
    order: Digest | None = None


@dataclass(frozen=True, slots=True)
class Ruling:
    """What becomes of a command."""

    #: BEGIN: the row changed and work starts. REPLAY: answer what stands. REJECT: nothing.
    action: Action
    #: The row to store; None when there is nothing to store. With REPLAY and REJECT only its epoch may differ.
    row: FenceRow | None
    #: Why, when rejected.
    reason: Rejected | None = None


#: (phase, command) -> phase to enter, Action.REPLAY, or the reason of a rejection. None is a leg that is not known.
TABLE: Final[Mapping[tuple[Phase | None, Command], Phase | Action | Rejected]] = {
    (None, Command.PREPARE): Phase.PREPARING,
    (None, Command.COMMIT): Rejected.LEG_UNKNOWN,
    (None, Command.ABORT): Phase.ABORTING,
    (None, Command.REVERSE): Rejected.LEG_UNKNOWN,
    (Phase.PREPARING, Command.PREPARE): Action.REPLAY,
    (Phase.PREPARING, Command.COMMIT): Rejected.LEG_NOT_PREPARED,
    (Phase.PREPARING, Command.ABORT): Phase.ABORTING,
    (Phase.PREPARING, Command.REVERSE): Rejected.LEG_NOT_EXECUTED,
    (Phase.PREPARED, Command.PREPARE): Action.REPLAY,
    (Phase.PREPARED, Command.COMMIT): Phase.COMMITTING,
    (Phase.PREPARED, Command.ABORT): Phase.ABORTING,
    (Phase.PREPARED, Command.REVERSE): Rejected.LEG_NOT_EXECUTED,
    (Phase.REFUSED, Command.PREPARE): Action.REPLAY,
    (Phase.REFUSED, Command.COMMIT): Action.REPLAY,
    (Phase.REFUSED, Command.ABORT): Phase.ABORTING,
    (Phase.REFUSED, Command.REVERSE): Rejected.LEG_NOT_EXECUTED,
    (Phase.COMMITTING, Command.PREPARE): Action.REPLAY,
    (Phase.COMMITTING, Command.COMMIT): Action.REPLAY,
    (Phase.COMMITTING, Command.ABORT): Phase.ABORTING,
    (Phase.COMMITTING, Command.REVERSE): Rejected.LEG_NOT_EXECUTED,
    (Phase.COMMITTED, Command.PREPARE): Action.REPLAY,
    (Phase.COMMITTED, Command.COMMIT): Action.REPLAY,
    (Phase.COMMITTED, Command.ABORT): Action.REPLAY,
    (Phase.COMMITTED, Command.REVERSE): Phase.REVERSING,
    (Phase.ABORTING, Command.PREPARE): Rejected.LEG_ABORTING,
    (Phase.ABORTING, Command.COMMIT): Rejected.LEG_ABORTING,
    (Phase.ABORTING, Command.ABORT): Action.REPLAY,
    (Phase.ABORTING, Command.REVERSE): Rejected.LEG_NOT_EXECUTED,
    (Phase.RELEASED, Command.PREPARE): Rejected.LEG_RELEASED,
    (Phase.RELEASED, Command.COMMIT): Rejected.LEG_RELEASED,
    (Phase.RELEASED, Command.ABORT): Action.REPLAY,
    (Phase.RELEASED, Command.REVERSE): Rejected.LEG_NOT_EXECUTED,
    (Phase.REVERSING, Command.PREPARE): Rejected.LEG_REVERSING,
    (Phase.REVERSING, Command.COMMIT): Rejected.LEG_REVERSING,
    (Phase.REVERSING, Command.ABORT): Action.REPLAY,
    (Phase.REVERSING, Command.REVERSE): Action.REPLAY,
    (Phase.REVERSED, Command.PREPARE): Rejected.LEG_REVERSED,
    (Phase.REVERSED, Command.COMMIT): Rejected.LEG_REVERSED,
    (Phase.REVERSED, Command.ABORT): Action.REPLAY,
    (Phase.REVERSED, Command.REVERSE): Action.REPLAY,
}

#: (phase, finding) -> phase to enter. What is not here contradicts what was found before, or comes late, and is raised as trouble.
FINDINGS: Final[Mapping[tuple[Phase, Finding], Phase]] = {
    (Phase.PREPARING, Finding.VOTED_YES): Phase.PREPARED,
    (Phase.PREPARING, Finding.VOTED_NO): Phase.REFUSED,
    (Phase.PREPARED, Finding.LAPSED): Phase.REFUSED,
    (Phase.COMMITTING, Finding.EXECUTED): Phase.COMMITTED,
    (Phase.COMMITTING, Finding.REFUSED): Phase.REFUSED,
    (Phase.ABORTING, Finding.RELEASED): Phase.RELEASED,
    (Phase.ABORTING, Finding.EXECUTED): Phase.COMMITTED,
    (Phase.REVERSING, Finding.REVERSED): Phase.REVERSED,
    # Nothing was undone: the leg is executed, as before.
    (Phase.REVERSING, Finding.REVERSAL_REFUSED): Phase.COMMITTED,
    # Contradictions that must be told: a leg that was given up, found executed.
    (Phase.REFUSED, Finding.EXECUTED): Phase.COMMITTED,
    (Phase.RELEASED, Finding.EXECUTED): Phase.COMMITTED,
}


#: Revision at which a leg's YES is given: one for PREPARING, one for the vote. A restored row goes on from it, so that whoever ignores lower revisions
#: than the one it saw does not ignore what becomes of the leg.
YES_REVISION: Final = 2


def fence_digest(binding: Binding) -> Digest:
    """What a leg's row is bound to: plan digest, leg and lock, nothing else."""
    return digest_of(
        {
            "plan_digest": binding.header.digest.hex(),
            "leg_id": binding.leg.leg_id,
            "leg_index": binding.index,
            "lock": binding.lock.hex(),
        }
    )


def rule(row: FenceRow | None, asked: Asked, now: datetime) -> Ruling:
    """What becomes of a command, given what is known of the leg and the participant's database clock."""
    if row is not None and row.digest is not None and row.digest != asked.digest:
        return Ruling(Action.REJECT, None, Rejected.DIGEST_MISMATCH)
    if row is not None and asked.epoch < row.epoch:
        return Ruling(Action.REJECT, None, Rejected.EPOCH_STALE)
    if row is None:
        row = FenceRow(None, None, asked.epoch)
    raised = raise_epoch(row, asked.epoch)
    told = TABLE[row.phase, asked.command]
    if asked.command is Command.COMMIT and told is Rejected.LEG_UNKNOWN and asked.own_yes:
        told, row = Phase.COMMITTING, replace(row, revision=max(row.revision, YES_REVISION))
    if asked.command is Command.REVERSE and told is Phase.REVERSING and _order(asked) in row.reversals:
        told = Action.REPLAY
    if isinstance(told, Rejected):
        return Ruling(Action.REJECT, raised, told)
    if isinstance(told, Action):
        return Ruling(told, raised)
    refused = _refused(row, asked, now)
    if refused is not None:
        return Ruling(Action.REJECT, raised, refused)
    decision = asked.decision if asked.command is Command.COMMIT else row.decision
    reversals = (*row.reversals, _order(asked)) if asked.command is Command.REVERSE else row.reversals
    begun = FenceRow(told, asked.digest, asked.epoch, decision, row.revision + 1, reversals)
    return Ruling(Action.BEGIN, begun)


def _order(asked: Asked) -> Digest:
    """The order that a Reverse carries out; one that is not named is the leg's only one."""
    return asked.order or asked.digest


def _refused(row: FenceRow, asked: Asked, now: datetime) -> Rejected | None:
    """Why a command that the table lets begin may not, all the same."""
    match asked.command:
        case Command.PREPARE if asked.not_after is None or now > asked.not_after:
            return Rejected.PREPARE_LATE
        case Command.COMMIT if asked.not_after is not None and now > asked.not_after:
            return Rejected.COMMIT_LATE
        case Command.ABORT if row.phase is Phase.COMMITTING and row.decision is not Decision.DELEGATED:
            return Rejected.LEG_DECIDED
        case _:
            return None


def raise_epoch(row: FenceRow | None, epoch: Epoch) -> FenceRow | None:
    """The row with its fence raised, or None when it stands as high already."""
    if row is None:
        return FenceRow(None, None, epoch)
    return replace(row, epoch=epoch) if epoch > row.epoch else None


def raised(row: FenceRow, epoch: Epoch, known_revision: int) -> FenceRow | None:
    """The row with its fence raised, and its revision where somebody has seen a higher one (before this database was put back); None as above."""
    if epoch < row.epoch:
        return None
    higher = replace(row, epoch=epoch, revision=max(row.revision, known_revision))
    return None if higher == row else higher


def complete(row: FenceRow, finding: Finding) -> FenceRow | None:
    """The row after a finding, or None when the finding has no place there."""
    if row.phase is None:
        return None
    phase = FINDINGS.get((row.phase, finding))
    return None if phase is None else replace(row, phase=phase, revision=row.revision + 1)
