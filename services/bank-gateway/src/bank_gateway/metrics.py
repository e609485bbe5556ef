"""What the bank-gateway shows beside what every participant shows: messages out and in, and what waits for the bank or for a person."""

from __future__ import annotations

from typing import Final

from bank_gateway.messages import PaymentStatus, Received, ReservationStatus, Resolution
from lockstep_kit.metrics.instruments import Instruments
from lockstep_kit.metrics.readings import Measure, Query
from lockstep_kit.metrics.serving import Metrics

INSTRUMENTS: Final = Instruments()
SENT: Final = INSTRUMENTS.counter(
    "lockstep_bank_messages_sent_total",
    "Attempts to hand something over to the bank, by action and how it answered.",
    ("action", "answer"),
    known=[(action, answer) for action in ("SEND", "RELEASE") for answer in ("Accepted", "TurnedDown", "NoAnswer")],
)
RECEIVED: Final = INSTRUMENTS.counter(
    "lockstep_bank_messages_received_total",
    "Messages of the bank that were taken, by kind and the status that they tell, if one.",
    ("kind", "status"),
)
QUARANTINED: Final = INSTRUMENTS.counter(
    "lockstep_bank_messages_quarantined_total", "Messages of the bank that break a rule and were put aside for a person."
)
ANSWERED: Final = INSTRUMENTS.gauge(
    "lockstep_bank_answered_timestamp_seconds",
    "When the bank's mailbox last answered, with or without messages, Unix time in seconds.",
)

#: What the bank has not taken, or has taken without an end yet.
OUTBOX: Final = Query(
    name="bank_outbox",
    statement="""
    select state, count(*) as messages, coalesce(max(attempts), 0) as attempts from bank_outbox
    where state in ('QUEUED', 'SENT') group by state
    union all select 'ACKED', count(*), 0 from bank_outbox where state = 'ACKED'
    """,
    labels=("state",),
    measures=(
        Measure("messages", "lockstep_bank_outbox_messages", "Messages for the bank that have not come to their end, by state."),
        Measure("attempts", "lockstep_bank_outbox_attempts_max", "How often the one that was tried most often was tried."),
    ),
    known=(("QUEUED",), ("SENT",), ("ACKED",)),
)

#: What a person has to look into.
MATTERS: Final = Query(
    name="bank_matters",
    statement="""
    select kind, count(*) as matters, extract(epoch from clock_timestamp() - min(recorded_at)) as oldest
    from bank_matter where closed_at is null group by kind
    """,
    labels=("kind",),
    measures=(
        Measure("matters", "lockstep_bank_matters_open", "What the bank said that a person must look into, by kind."),
        Measure("oldest", "lockstep_bank_matter_oldest_age_seconds", "Age of the oldest of them, in seconds."),
    ),
)

#: Statuses that are shown by their own names; banks may say others, and as many as they like.
STATUSES: Final = frozenset(
    {
        "ACCC",
        "ACCP",
        "ACFC",
        "ACFW",
        "ACSC",
        "ACSP",
        "ACTC",
        "ACWC",
        "BLCK",
        "CANC",
        "CNCL",
        "COMP",
        "PART",
        "PDCR",
        "PDNG",
        "RCVD",
        "RJCR",
        "RJCT",
    }
)


def told_status(received: Received) -> str:
    """The status that a message tells of its payments: "" where it tells none, "several" where they differ, "other" for one that is not listed."""
    told = {each.status for each in received.statements if isinstance(each, PaymentStatus | ReservationStatus)}
    told |= {each.confirmation for each in received.statements if isinstance(each, Resolution)}
    if len(told) > 1:
        return "several"
    status = next(iter(told), "")
    return status if not status or status in STATUSES else "other"


METRICS: Final = Metrics((INSTRUMENTS,), (OUTBOX, MATTERS))
