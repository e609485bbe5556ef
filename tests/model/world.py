"""The model's world: its configurations, its moments, and what one state of it is made of.

A state is a tuple of small integers: the coordinator's plan, its clock and the participants', the lease's epoch, what is left of the faults, a plan that
the database may be set back to, and one number per leg. Each number stands for a whole value (a `Plan`, a `Local`) that is kept once in a `Pool`, so
that what production's functions make of a value is worked out once and then looked up.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntFlag, StrEnum
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

from coordinator.model import State
from lockstep_kit.participant.records import LegRecord
from lockstep_kit.plan import LegKind, Policy
from lockstep_kit.statements import Gate, Promise, PromiseKind, Refusal, Verdict

#: When everything begins, and until when the decision may be written.
BEGINNING: Final = datetime(2030, 1, 1, tzinfo=UTC)
DEADLINE: Final = BEGINNING + timedelta(hours=10)
#: What a clock can show: before the deadline, and after it.
CLOCKS: Final = (BEGINNING, DEADLINE + timedelta(hours=1))
#: What a restore adds to the number of an epoch.
GENERATION: Final = 10
#: Longer than everything that a person is called for.
LONG: Final = timedelta(hours=2)

#: What a participant may promise or refuse.
FIRM: Final = Promise(PromiseKind.GUARANTEED, None)
SOFT: Final = Promise(PromiseKind.GUARANTEED, DEADLINE + timedelta(days=1))
BRIEF: Final = Promise(PromiseKind.GUARANTEED, DEADLINE + timedelta(minutes=1))
NO: Final = Refusal("BANK_PREPARE_FAILED", "AM04", "not enough money")

Answer: TypeAlias = Promise | Refusal
Signing: TypeAlias = tuple[Gate, Verdict]


class Fault(StrEnum):
    """What can go wrong beyond messages, which are lost, doubled and reordered in every configuration. Each is bounded by the configuration."""

    #: The coordinator dies; another takes the plan over.
    CRASH = "crash"
    #: A participant refuses for good what it was told to execute.
    BREAK = "break"
    #: A promise ends before it is used.
    LAPSE = "lapse"
    #: The outside world executes what had been released.
    ROGUE = "rogue"
    #: The outside world takes back what was executed (a return, a reorganisation).
    RETURN = "return"
    #: A participant's database is set back to before the leg was known.
    LOSE = "lose"
    #: A reversal is refused.
    STUCK = "stuck"
    #: Whoever has taken the coordinator over orders a release.
    HOSTILE = "hostile"
    #: The coordinator's database is set back.
    RESTORE = "restore"
    #: Operators resolve something.
    VERB = "verb"
    #: More time passes than anybody should need.
    LATE = "late"


class Outside(StrEnum):
    """What is true of a leg in the outside world, whoever knows it."""

    #: Nothing was done.
    NOTHING = "NOTHING"
    #: The amount can move only by this plan's commit or abort.
    HELD = "HELD"
    #: It took effect.
    EXECUTED = "EXECUTED"
    #: It was released: it cannot take effect.
    RELEASED = "RELEASED"
    #: It was refused for good, or its hold is gone: it cannot take effect.
    GONE = "GONE"
    #: It took effect and was undone.
    REVERSED = "REVERSED"


@dataclass(frozen=True, slots=True)
class Shape:
    """A leg of a configuration."""

    #: The leg.
    leg_id: str
    #: What it does.
    kind: LegKind
    #: How its participant may vote.
    answers: tuple[Answer, ...] = (FIRM, NO)
    #: Legs that come before it.
    depends_on: tuple[str, ...] = ()
    #: Its participant answers within the command's transaction: no working phase is seen.
    prompt: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """One part of the search."""

    #: Name.
    name: str
    #: The plan's legs.
    legs: tuple[Shape, ...]
    #: Gates that persons may sign, and how.
    gates: frozenset[Signing]
    #: How often each fault may happen.
    faults: Mapping[Fault, int] = field(default_factory=dict)
    #: What the plan's signers allow.
    policy: Policy = field(default_factory=Policy)
    #: State in which the search begins.
    start: State = State.READY_FOR_PREPARE
    #: Whether reports of working phases reach the coordinator, too.
    working_heard: bool = False
    #: Whether copies in flight that production's tables say can do nothing any more are forgotten.
    thrifty: bool = True
    #: Whether participants' clocks pass the deadline on their own.
    skew: bool = False


class Asked(IntFlag):
    """What the outside world was told to do, at any time: it may still do so."""

    NOTHING = 0
    EXECUTE = 1


@dataclass(frozen=True, slots=True)
class Site:
    """A leg where it is served: the participant's row, everything it ever reported, and the outside world."""

    #: Row in the participant's database; None: no row.
    record: LegRecord | None = None
    #: Its reports so far, oldest first: any can arrive, at any time, any number of times.
    reports: tuple[int, ...] = ()
    #: The truth.
    outside: Outside = Outside.NOTHING
    #: What the outside world was told.
    asked: Asked = Asked.NOTHING


class Local(NamedTuple):
    """A leg in a state: the command in force about it, copies of older ones in flight, and its site."""

    #: Command in the coordinator's outbox that is not answered; 0: none.
    row: int
    #: That command as the message that would be sent now; 0: none.
    message: int
    #: Where it is served.
    site: int
    #: Messages that may still arrive, as bits.
    flight: int


Key = TypeVar("Key", bound=Hashable)


class Pool(Generic[Key]):
    """Values and their numbers: the same value has the same number."""

    def __init__(self) -> None:
        self.values: list[Key] = []
        self._numbers: dict[Key, int] = {}

    def number(self, value: Key) -> int:
        """A value's number."""
        found = self._numbers.get(value)
        if found is None:
            found = self._numbers[value] = len(self.values)
            self.values.append(value)
        return found

    def __getitem__(self, number: int) -> Key:
        return self.values[number]

    def __len__(self) -> int:
        return len(self.values)
