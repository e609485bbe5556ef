"""What the bridge publishes, and where it goes on. Pure.

1. An entry's message says of which log and place it is. The message id is both together: after a restore the same event ids stand for what may be other
   entries at other places, which must not be taken for repeats.
2. Each message is published on the condition that the one before it is the stream's last. So nothing can come in between, from another bridge or
   from this one before it was killed, and a message that is lost takes all that were sent behind it with it.
3. Where it goes on is read from the stream's last message alone. That holds the token from which its entry was reached, so that no token is made here.
4. Another log than the last message's is never gone on with by itself: whoever reads the stream must be told that the journal was put back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lockstep_kit.values import dataclass

#: Names of the headers of every message.
LOG: Final = "Lockstep-Log"
POSITION: Final = "Lockstep-Position"
TOKEN: Final = "Lockstep-Resume-Token"
PLAN: Final = "Lockstep-Plan"
SEQUENCE: Final = "Lockstep-Sequence"
TYPE: Final = "Lockstep-Type"
EVENT_ID: Final = "Lockstep-Event-Id"
MESSAGE_ID: Final = "Nats-Msg-Id"
EXPECTED_LAST: Final = "Nats-Expected-Last-Sequence"
EXPECTED_STREAM: Final = "Nats-Expected-Stream"


class Halted(Exception):
    """The bridge must not go on by itself; a person must look."""

    def __init__(self, reason: str, what_to_do: str) -> None:
        super().__init__(f"{reason}: {what_to_do}")
        self.reason = reason
        self.what_to_do = what_to_do


@dataclass(frozen=True, slots=True)
class Published:
    """The last message of a stream."""

    #: Its sequence in the stream; 0 where there is none yet.
    sequence: int
    #: The journal's log that its entry is of.
    log_id: str
    #: The entry's place in it.
    position: int
    #: From here the journal reaches the entry; "": from the first entry.
    token: str


#: Of a stream in which nothing was published yet.
NOTHING: Final = Published(0, "", 0, "")


@dataclass(frozen=True, slots=True)
class Described:
    """What a message says of its entry."""

    #: Plan of the entry.
    plan_id: str
    #: Its place in the plan's chain.
    sequence: int
    #: Its type.
    type: str
    #: Its event's id.
    event_id: str


def subject(prefix: str, type_: str) -> str:
    """Where an entry of a type is published."""
    return f"{prefix}.{type_}"


def headers(entry: Described, place: Published, stream: str) -> dict[str, str]:
    """Headers of the message that will have `place` in the stream."""
    return {
        MESSAGE_ID: f"{place.log_id}:{place.position}",
        EXPECTED_STREAM: stream,
        EXPECTED_LAST: str(place.sequence - 1),
        LOG: place.log_id,
        POSITION: str(place.position),
        TOKEN: place.token,
        PLAN: entry.plan_id,
        SEQUENCE: str(entry.sequence),
        TYPE: entry.type,
        EVENT_ID: entry.event_id,
    }


def published(sequence: int, found: Mapping[str, str]) -> Published:
    """What the stream's last message says.

    Raises:
        Halted: it is none of this bridge's.
    """
    log_id, position = found.get(LOG, ""), found.get(POSITION, "")
    if not log_id or not (position.isascii() and position.isdigit()):
        raise Halted(
            "STREAM_FOREIGN", "the stream's last message is not of this bridge: give it a stream that nobody else writes to"
        )
    return Published(sequence, log_id, int(position), found.get(TOKEN, ""))


def follow(last: Published, log_id: str, leave_log: str) -> Published:
    """The last message, seen from the log that the journal has now.

    Raises:
        Halted: the log is another one than the last message's, and nobody said that that one is to be left.
    """
    if last.log_id in ("", log_id):
        return last
    if last.log_id != leave_log:
        raise restored(last)
    return left(last, log_id)


def left(last: Published, log_id: str) -> Published:
    """Behind the last message of a log that was left: the next entry is the first of the other log."""
    return Published(last.sequence, log_id, 0, "")


def restored(last: Published) -> Halted:
    """The journal was put back, and is another log than the stream's."""
    return Halted(
        "JOURNAL_RESTORED",
        f"the journal was put back, and its log is no longer {last.log_id}, of which the stream has the entries up to {last.position}. "
        "Tell the stream's readers that entries of another log follow, from its first one on, which may repeat or contradict what they have; "
        f"then start the bridge with --leave-log {last.log_id}",
    )


def next_place(last: Published, position: int, token: str) -> Published | None:
    """Where the message of an entry goes that was reached from a token; None: it was published before.

    Raises:
        Halted: an entry is missing before it.
    """
    if position <= last.position:
        return None
    if position != last.position + 1:
        raise Halted(
            "JOURNAL_GAP", f"the journal delivered entry {position} of log {last.log_id} behind {last.position}: call an operator"
        )
    return Published(last.sequence + 1, last.log_id, position, token)
