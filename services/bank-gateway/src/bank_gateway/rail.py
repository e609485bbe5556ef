"""What a rail to a bank must do. A rail carries octets; it knows nothing of what they say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from lockstep_kit.values import dataclass


@dataclass(frozen=True, slots=True)
class Accepted:
    """The bank has it durably. What it makes of it arrives in the mailbox."""


@dataclass(frozen=True, slots=True)
class TurnedDown:
    """The bank did not take it, and never will: the same again would be turned down again."""

    #: HTTP status or the like.
    status: str
    #: Field that the bank names, or "".
    field: str
    #: Rule that the bank names.
    rule: str
    #: Whether the bank knows the key by other content, and so may have something of the same name.
    differs: bool = False


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Nobody knows whether the bank has it."""

    #: What went wrong.
    why: str


Handover: TypeAlias = Accepted | TurnedDown | NoAnswer


@dataclass(frozen=True, slots=True)
class Message:
    """A message that is handed over."""

    #: The message.
    octets: bytes
    #: Key by which the bank knows a repeat.
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class Release:
    """The key that releases a hold, which is shown."""

    #: The payment that is held.
    uetr: str
    #: The key.
    key: bytes
    #: Key by which the bank knows a repeat.
    idempotency_key: str


Request: TypeAlias = Message | Release


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message in our mailbox."""

    #: Its place; ascending.
    cursor: int
    #: The octets, as far as they could be made out.
    octets: bytes
    #: What is wrong with the delivery itself, as in "has another hash"; "" for one that is whole.
    damage: str = ""


class MailboxUnavailable(ConnectionError):
    """The mailbox could not be read, or what came is not whole; what was not taken is read again."""


class Rail(Protocol):
    """A way to one bank. Nothing is tried again by the rail itself."""

    async def hand_over(self, requests: Sequence[Request]) -> Sequence[Handover]:
        """Hand over what goes to the bank at the same time; of each what became of it, in their order."""
        ...

    async def receive(self, after: int, wait_seconds: float) -> Sequence[Delivery]:
        """Messages after a place, in order; waits for the first.

        Raises:
            MailboxUnavailable: it could not be read.
        """
        ...

    async def acknowledge(self, upto: int) -> None:
        """Tell the bank that everything up to a place is stored here.

        Raises:
            MailboxUnavailable: it could not be told; telling it again is fine.
        """
        ...

    async def close(self) -> None:
        """Close connections."""
        ...
