"""What must hold between the chain and those who write to it, judged by the chain's own final blocks.

I3 an intent is on the chain at most once, and nothing is there that was not stored first; I5 nothing stays in flight; I8 what a gateway says, and what it has
signed, stands in a final block.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from lockstep_chain.judging import ATTEMPTS_MAX
from lockstep_chain.machine import IN_FLIGHT, State
from lockstep_chain.ports import Receipt
from lockstep_contracts.escrow import LegStatus, leg_key
from lockstep_contracts.notary import PlanStatus
from lockstep_testkit.simulation.chain_parties import ACCOUNTS, DLT_GATEWAY

if TYPE_CHECKING:
    from lockstep_testkit.simulation.memory import Key, Row
    from lockstep_testkit.simulation.node import Node
    from lockstep_testkit.simulation.world import World

#: What an entry must be, at finality, when its gateway says that the leg is there.
_LEGS: Final[Mapping[str, tuple[LegStatus, ...]]] = {
    # An older database may say so of what has gone on since.
    "PREPARED": (LegStatus.PREPARED, LegStatus.COMMITTED, LegStatus.ABORTED, LegStatus.REVERSED),
    "COMMITTED": (LegStatus.COMMITTED, LegStatus.REVERSED),
    "RELEASED": (LegStatus.ABORTED,),
}
_PLANS: Final[Mapping[str, tuple[PlanStatus, ...]]] = {
    "PREPARED": (PlanStatus.REGISTERED, PlanStatus.COMMITTED, PlanStatus.ABORTED, PlanStatus.MIXED),
    "COMMITTED": (PlanStatus.COMMITTED, PlanStatus.MIXED),
    "RELEASED": (PlanStatus.ABORTED, PlanStatus.MIXED),
}
#: What a leg's trouble says of a transaction that is a person's.
_USED: Final = "nonce of the leg's transaction was used by another one"
#: How a receipt must be for each end that has one.
_SUCCEEDED: Final = {State.FINAL: True, State.REVERTED: False, State.CANCELLED: True}
#: What is in flight for so long after everything was well hangs.
IN_FLIGHT_MAX: Final = timedelta(seconds=120)


def written(
    node: Node, gateway: str, writes: Mapping[str, Mapping[Key, Row | None]], tables: Mapping[str, Mapping[Key, Row]]
) -> Iterator[str]:
    """What a transaction of a gateway says of legs, and does not stand in a final block."""
    for key, row in writes.get("participant_leg", {}).items():
        if row is not None:
            yield from _believed(node, gateway, tables["participant_leg"].get(key), row)


def _believed(node: Node, gateway: str, before: Row | None, row: Row) -> Iterator[str]:
    phase = row["phase"]
    if phase is None or (before is not None and before["phase"] == phase):
        return
    state = node.final.state
    if gateway == DLT_GATEWAY:
        stands, wanted = (
            str(state.leg(leg_key(row["plan_digest"], row["leg_id"])).name),
            [each.name for each in _LEGS.get(phase, ())],
        )
    else:
        stands, wanted = str(state.plan(row["plan_digest"]).name), [each.name for each in _PLANS.get(phase, ())]
    if wanted and stands not in wanted:
        yield f"I8: {gateway} says {phase} of leg {row['leg_id']} of plan {row['plan_id']}; in the last final block it is {stands}"


def handed_over(world: World, plan_id: str) -> bool:
    """Whether a person looks after a leg of a plan: its transaction's nonce was used by another, or transaction after transaction left it as it was."""
    legs = [row for name in ACCOUNTS for row in world.servers[name].tables["participant_leg"].values() if row["plan_id"] == plan_id]
    elsewhere = bool(world.chain.node.foreign) or world.restored
    return any(
        (elsewhere and _USED in row["trouble"]) or row["trouble"].startswith(f"{ATTEMPTS_MAX} transactions left") for row in legs
    )


def findings(world: World) -> Iterator[str]:
    """Everything that does not hold at the end."""
    node = world.chain.node
    settled = {receipt.transaction_hash: receipt for mined in node.final_blocks() for receipt in mined.receipts}
    for name in ACCOUNTS:
        tables = world.servers[name].tables
        attempts: dict[int, list[bytes]] = {}
        for each in tables["evm_attempt"].values():
            attempts.setdefault(each["transaction_id"], []).append(each["transaction_hash"])
        for row in tables["evm_transaction"].values():
            mine = [settled[each] for each in attempts.get(row["id"], ()) if each in settled]
            yield from _told(name, row, mine)
            yield from _hangs(world, name, row)
        if not world.restored:
            known = {each for hashes in attempts.values() for each in hashes}
            yield from _stored_first(node, name, world.chain.signers[name], known)
        yield from _sent_anew(name, list(tables["chain_order"].values()))


def _told(name: str, row: Mapping[str, Any], mine: list[Receipt]) -> Iterator[str]:
    """Whether the chain says of a transaction what its machine says."""
    about, state = f"transaction {row['id']} of {name}", State(row["state"])
    if len(mine) > 1:
        yield f"I3: {about} is on the chain {len(mine)} times"
    if state in _SUCCEEDED:
        found = next((each for each in mine if each.transaction_hash == row["transaction_hash"]), None)
        if found is None or found.succeeded is not _SUCCEEDED[state]:
            yield f"I8: {about} is {state}, the chain says {found}"
    elif state.settled and mine:
        yield f"I8: {about} is {state}, and it is on the chain"


def _hangs(world: World, name: str, row: Mapping[str, Any]) -> Iterator[str]:
    """Nothing is forgotten; where clocks jumped, nobody can say how old it is."""
    age = world.servers[name].now() - row["created_at"]
    unsettled = State(row["state"]) in IN_FLIGHT or row["state"] == State.QUEUED
    if unsettled and age > IN_FLIGHT_MAX and "clock_jump" not in world.faults:
        yield f"I5: transaction {row['id']} of {name} is {row['state']} since {age}"


def _stored_first(node: Node, name: str, accounts: Collection[str], known: set[bytes]) -> Iterator[str]:
    """Nothing of a gateway's accounts is on the chain that its database does not know."""
    for mined in node.final_blocks():
        for sent in mined.transactions:
            if sent.sender in accounts and sent.hash not in known and sent.hash not in node.foreign:
                yield f"I3: block {mined.header.number} has a transaction of {name} that it never stored"


def _sent_anew(name: str, orders: list[Mapping[str, Any]]) -> Iterator[str]:
    """A leg whose transaction's nonce was used by another is not sent anew by itself."""
    for order in orders:
        later = order["attempt"] + 1
        same = ("plan_id", "leg_id", "phase", "order_no")
        again = any(each["attempt"] == later and all(each[key] == order[key] for key in same) for each in orders)
        if order["skip_code"] == State.MANUAL.value.upper() and again:
            yield f"I3: {name} sent leg {order['leg_id']} of plan {order['plan_id']} anew, and nobody knows what became of it"
