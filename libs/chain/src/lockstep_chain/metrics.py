"""What a service with accounts on a chain shows: the chain as it sees it, its transactions, and what went wrong with nonces and finality."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lockstep_chain.machine import State
from lockstep_chain.ports import Block
from lockstep_kit.metrics.instruments import Instruments
from lockstep_kit.metrics.readings import Measure, Query

INSTRUMENTS: Final = Instruments()
_HEAD: Final = INSTRUMENTS.gauge("lockstep_chain_head_block", "Height of the latest block that was seen.")
_HEAD_TIME: Final = INSTRUMENTS.gauge(
    "lockstep_chain_head_timestamp_seconds", "When the latest block that was seen was made, by its own word, Unix time in seconds."
)
_SEEN: Final = INSTRUMENTS.gauge(
    "lockstep_chain_answered_timestamp_seconds", "When the chain last told its head, Unix time in seconds."
)
_FINAL: Final = INSTRUMENTS.gauge("lockstep_chain_final_block", "Height of the highest final block.")
CONTRADICTED: Final = INSTRUMENTS.gauge(
    "lockstep_chain_finality_contradicted", "1 while the chain has another block where one was final: nothing is read or sent."
)
HELD_UP: Final = INSTRUMENTS.gauge(
    "lockstep_chain_account_held_up", "1 while an account can do nothing: chain or key store do not answer.", ("address",)
)
REORGANISED: Final = INSTRUMENTS.counter(
    "lockstep_chain_reorganised_transactions_total", "Transactions of ours that were in a block and are not any more."
)
GAPS_FILLED: Final = INSTRUMENTS.counter(
    "lockstep_chain_nonce_gaps_filled_total",
    "Nonces below everything in flight that no transaction had, and that were filled.",
    ("address",),
)
NONCES_ELSEWHERE: Final = INSTRUMENTS.counter(
    "lockstep_chain_foreign_nonces_total", "Nonces of our accounts that somebody else used.", ("address",)
)
ENDPOINTS_OUT: Final = INSTRUMENTS.counter(
    "lockstep_chain_endpoint_outages_total",
    "Times that an endpoint was left out, since it failed or serves another chain.",
    ("endpoint",),
)
_SETTLED: Final = INSTRUMENTS.counter(
    "lockstep_chain_transactions_total",
    "Transactions that came to their end, by state.",
    ("state",),
    known=[(state.value,) for state in (State.FINAL, State.REVERTED, State.CANCELLED, State.DEAD, State.MANUAL)],
)


def account_shown(address: str) -> None:
    """Show what is counted of an account before there is anything: a first step is seen only from zero."""
    for each in (HELD_UP, GAPS_FILLED, NONCES_ELSEWHERE):
        each.labels(address)


def head_seen(head: Block) -> None:
    """Note the chain's head."""
    _HEAD.set(head.number)
    _HEAD_TIME.set(head.timestamp)
    _SEEN.set_to_current_time()


def final_seen(number: int) -> None:
    """Note the highest final block."""
    _FINAL.set(number)


def ended(states: Iterable[State]) -> None:
    """Count transactions that came to their end, once that is committed."""
    for state in states:
        _SETTLED.labels(state.value).inc()


#: Transactions that are on their way; those that wait and those in flight have an index each, and nothing of what ended is read.
TRANSACTIONS: Final = Query(
    name="transactions",
    statement="""
    select state, count(*) as transactions, extract(epoch from clock_timestamp() - min(created_at)) as oldest
    from evm_transaction where state = 'queued' group by state
    union all
    select state, count(*), extract(epoch from clock_timestamp() - min(created_at))
    from evm_transaction where state in ('signed', 'sent', 'mined') group by state
    """,
    labels=("state",),
    measures=(
        Measure("transactions", "lockstep_chain_transactions_open", "Transactions on their way, by state."),
        Measure(
            "oldest", "lockstep_chain_transaction_oldest_age_seconds", "Age of the oldest of them since it was queued, in seconds."
        ),
    ),
    known=tuple((state.value,) for state in (State.QUEUED, State.SIGNED, State.SENT, State.MINED)),
)

#: Nonces between the lowest in flight and the next that nothing of ours in flight has: given, and neither used nor on its way.
NONCES: Final = Query(
    name="nonces",
    statement="""
    select address, next_nonce, coalesce(next_nonce - lowest - in_flight, 0) as missing
    from evm_signer
    left join (
        select chain_id, signer, min(nonce) as lowest, count(*) as in_flight from evm_transaction
        where state in ('signed', 'sent', 'mined') group by chain_id, signer
    ) as flying on flying.chain_id = evm_signer.chain_id and flying.signer = evm_signer.address
    """,
    labels=("address",),
    measures=(
        Measure("next_nonce", "lockstep_chain_next_nonce", "The next nonce that an account gives."),
        Measure(
            "missing",
            "lockstep_chain_nonces_passed",
            "Nonces above the lowest in flight that nothing in flight has: settled out of turn, or a gap.",
        ),
    ),
)

READINGS: Final = (TRANSACTIONS, NONCES)
