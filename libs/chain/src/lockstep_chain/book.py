"""What a participant brings about its contract: how legs become calls, and how the contract's words are read. Pure implementations only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from lockstep_chain.judging import Rules
from lockstep_chain.ports import Log, Question, Told
from lockstep_contracts.events import Skipped, decode_error, decode_log, event_topic
from lockstep_kit.fence import Phase
from lockstep_kit.participant.ports import Capabilities, LegWork
from lockstep_kit.statements import Refusal
from lockstep_kit.values import dataclass

#: A batch that took effect has an event or two of each of its legs: those are not even decoded.
_SKIPPED: Final = (event_topic(Skipped),)


@dataclass(frozen=True, slots=True)
class Call:
    """One call that carries a batch of legs."""

    #: Calldata.
    data: bytes
    #: Gas that it may use; fixed, so that no node has to be asked.
    gas_limit: int


@dataclass(frozen=True, slots=True)
class Skip:
    """A batch's word that one of its legs took no effect."""

    #: Key of the entry.
    key: bytes
    #: Name of the error.
    code: str
    #: The error with its arguments.
    detail: str


@dataclass(frozen=True, slots=True)
class Landmark:
    """Something that must be on the chain before a service begins."""

    #: Where the settings name it.
    field: str
    #: A question that any contract of its kind answers.
    question: Question
    #: The number that it must answer; None: any answer will do.
    answer: int | None = None


class Preconditions(Protocol):
    """What must hold before a leg's prepare is sent, and before it is promised. Rules alone: the questions are asked elsewhere (`inspecting`)."""

    def landmarks(self) -> Sequence[Landmark]:
        """What must be there when the service starts."""
        ...

    def rehearsal(self, batch: Sequence[LegWork], operator: str) -> Sequence[Question]:
        """The batch's prepare, and what its commit would do after it, in order."""
        ...

    def rehearsed(self, batch: Sequence[LegWork], told: Sequence[Told]) -> Sequence[str]:
        """What speaks against each leg after the rehearsal; "" where nothing does."""
        ...

    def prepares(self, batch: Sequence[LegWork], operator: str) -> Sequence[Question]:
        """Each leg's prepare by itself, for nodes that cannot rehearse; what is asked for all of them comes first."""
        ...

    def prepared(self, told: Sequence[Told | None]) -> Sequence[str]:
        """What speaks against each leg that was asked about by itself; "" where nothing does."""
        ...

    def questions(self, batch: Sequence[LegWork]) -> Sequence[Question]:
        """What is asked about legs against which something speaks, so that their refusals say what was missing."""
        ...

    def refusals(self, batch: Sequence[LegWork], errors: Sequence[str], told: Sequence[Told | None]) -> Sequence[Refusal]:
        """Why each of them is refused."""
        ...

    def payout(self, work: LegWork) -> Question:
        """What the commit of a leg would do with what is held for it."""
        ...

    def unpayable(self, work: LegWork, told: Told | None) -> str:
        """Why what is held could not be paid out, as a sentence; "" where nothing is known against it."""
        ...


class ContractBook(Protocol):
    """One contract, as a participant uses it."""

    @property
    def chain(self) -> str:
        """CAIP-2 id of its chain."""
        ...

    @property
    def contract(self) -> str:
        """EIP-55 address."""
        ...

    @property
    def batch_max(self) -> int:
        """Legs in one transaction at the most, so that it stays below the gas and size limits of real networks."""
        ...

    @property
    def rules(self) -> Rules:
        """How its entries are judged."""
        ...

    @property
    def preconditions(self) -> Preconditions | None:
        """What is proven before a leg is promised; None where a prepare needs nothing but the contract."""
        ...

    def capabilities(self) -> Capabilities:
        """What the participant can do with it."""
        ...

    def entry_key(self, work: LegWork) -> bytes:
        """Key of the leg's entry (32 bytes)."""
        ...

    def refuses(self, work: LegWork) -> Refusal | None:
        """Why terms are not served here, or, of a leg that is to be reversed, why it never can be; None where the contract is to be asked."""
        ...

    def foreign(self, work: LegWork) -> bool:
        """Whether no entry of this contract can ever stand for these terms, whatever the settings are or were."""
        ...

    def has_entry(self, work: LegWork) -> bool:
        """Whether the leg has an entry of its own in the contract; what has none is neither carried nor judged here."""
        ...

    def call(self, phase: Phase, batch: Sequence[LegWork]) -> Call:
        """The call that moves a batch of legs of one phase."""
        ...

    def status_query(self, keys: Sequence[bytes]) -> bytes:
        """Calldata that asks for the statuses of entries."""
        ...

    def statuses(self, result: bytes) -> tuple[str, ...]:
        """Statuses, in the order asked."""
        ...

    def skips(self, logs: Sequence[Log]) -> tuple[Skip, ...]:
        """Legs that a transaction's logs say were skipped."""
        ...


def skipped(contract: str, logs: Sequence[Log]) -> tuple[Skip, ...]:
    """What the Skipped events of a contract say."""
    found = []
    for log in logs:
        if log.address != contract or log.topics[:1] != _SKIPPED:
            continue
        event = decode_log(log.topics, log.data)
        if isinstance(event, Skipped):
            error = decode_error(event.reason)
            found.append(Skip(event.key, error.name if error else "UNKNOWN_ERROR", str(error) if error else event.reason.hex()))
    return tuple(found)
