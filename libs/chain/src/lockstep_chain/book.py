"""What a participant brings about its contract: how legs become calls, and how the contract's words are read. Pure implementations only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lockstep_chain.judging import Rules
from lockstep_chain.ports import Log
from lockstep_contracts.events import Skipped, decode_error, decode_log
from lockstep_kit.fence import Phase
from lockstep_kit.participant.ports import Capabilities, LegWork
from lockstep_kit.statements import Refusal


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
        event = decode_log(log.topics, log.data) if log.address == contract else None
        if isinstance(event, Skipped):
            error = decode_error(event.reason)
            found.append(Skip(event.key, error.name if error else "UNKNOWN_ERROR", str(error) if error else event.reason.hex()))
    return tuple(found)
