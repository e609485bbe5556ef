"""What there is to be changed: every row of every service's database, the tokens, the bank's book. Read before and after, and compared.

Columns that change by themselves (a lease's time, how far something was read) are named below; everything else that differs must be
borne out by a call that was accepted and names what the row is about.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from lockstep_sandbox import outside, scene
from lockstep_sandbox.chain import DEPLOYER
from lockstep_sandbox.deployment import SIGNERS
from lockstep_sandbox.stack import SERVICES, Sandbox
from lockstep_testkit.ownership import as_owner

#: Table -> columns that say no more than how far somebody has come, or that somebody is alive; what was come to lies in other rows.
PASSING: Final[Mapping[str, tuple[str, ...]]] = {
    "evm_signer": ("lease_holder", "lease_until"),
    "evm_final_block": ("number", "hash"),
    "witness": ("looked_at",),
    "participant_outcome_counter": ("next_sequence",),
    "participant_cursor": ("sequence",),
}
#: What is said of an escalation goes onto the chain in a transaction that does not name it.
CARRIED: Final = "escalation_record"
#: A column -> the column of another table that it points at.
CARRIERS: Final = (
    ((CARRIED, "intent_key"), ("evm_transaction", "idempotency_key")),
    (("evm_transaction", "id"), ("evm_attempt", "transaction_id")),
    (("evm_transaction", "signer"), ("evm_signer", "address")),
)
LOOK_SECONDS: Final = 0.3
LOOKS_MAX: Final = 100
#: So many looks that find the same: on a machine that has other things to do the next thing to follow may take a while.
QUIET_LOOKS: Final = 4
_TABLES: Final = """
    select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'public' and c.relkind in ('r', 'p') and not c.relispartition and c.relname <> 'alembic_version' order by 1
"""

#: (place, table) -> its rows as text.
State = Mapping[tuple[str, str], frozenset[str]]


class World(Protocol):
    """What can be changed."""

    async def state(self) -> State:
        """Everything, as it is."""
        ...

    async def money(self) -> State:
        """What is money: what no forged call moves, whoever makes it."""
        ...


@dataclass
class SandboxWorld:
    """A sandbox."""

    #: It.
    sandbox: Sandbox
    _tables: dict[str, list[str]] = field(default_factory=dict)

    async def state(self) -> State:
        """Every row of every service's database."""
        parts = await asyncio.gather(*(self._of_service(name) for name in SERVICES))
        return {place: rows for part in parts for place, rows in part.items()}

    async def _of_service(self, service: str) -> dict[tuple[str, str], frozenset[str]]:
        async with as_owner(self.sandbox, service) as database:
            if service not in self._tables:
                self._tables[service] = [row[0] for row in await database.fetch(_TABLES)]
            found = {}
            async with database.transaction(isolation="repeatable_read", readonly=True):
                for table in self._tables[service]:
                    rows = await database.fetch(f"select (to_jsonb(t) - $1::text[])::text from {table} t", PASSING.get(table, ()))
                    found[service, table] = frozenset(row[0] for row in rows)
            return found

    async def money(self) -> State:
        """Tokens by holder and in the escrow, how often the gateway has sent anything, and the bank's accounts with holds and bookings."""
        sandbox, chain = self.sandbox, self.sandbox.chain
        rows = []
        for symbol in (scene.BOND.symbol, scene.COIN.symbol):
            rows.append(f"{symbol} escrowed {await outside.escrowed(sandbox, symbol)}")
            for name in chain.accounts:
                rows.append(f"{symbol} {name} {await outside.token_balance(sandbox, symbol, chain.address(name))}")
        for name in (DEPLOYER, *SIGNERS["dlt-gateway"]):
            rows.append(f"nonce {name} {await chain.node.call('eth_getTransactionCount', chain.address(name), 'latest')}")
        accounts = (await outside.bank(sandbox, "/accounts"))["accounts"]
        book = [f"{each['account_id']} {each['booked_minor']} {each['held_minor']} {each['status']}" for each in accounts]
        return {("chain", "tokens"): frozenset(rows), ("bank", "accounts"): frozenset(book)}


async def settled(world: World) -> State:
    """The state once nothing follows any more from what was accepted before; as it is, if that takes too long."""
    before, quiet = await world.state(), 0
    for _ in range(LOOKS_MAX):
        await asyncio.sleep(LOOK_SECONDS)
        after = await world.state()
        quiet = quiet + 1 if after == before else 0
        before = after
        if quiet == QUIET_LOOKS:
            break
    return before


def carried(state: State, named: Collection[str]) -> frozenset[tuple[str, str, str, object]]:
    """What records that name something were, or are being, carried out with, however late, as (place, table, column, value)."""
    found: set[tuple[str, str, str, object]] = set()
    for (table, column), (other, key) in CARRIERS:
        for place, name in state:
            if name != table:
                continue
            for row in state[place, name]:
                values = json.loads(row)
                known = (
                    any(each in row for each in named)
                    if table == CARRIED
                    else any((place, table, *each) in found for each in values.items() if isinstance(each[1], str | int))
                )
                if known and values[column] is not None:
                    found.add((place, other, key, values[column]))
    return frozenset(found)


def differences(
    before: State, after: State, explained: Collection[str] = (), carriers: Collection[tuple[str, str, str, object]] = ()
) -> Iterator[str]:
    """Rows that are in one state and not in the other, but for those that name something of `explained`, or are one of the carriers."""
    tables = {(place, table) for place, table, _, _ in carriers}
    for place in sorted(before.keys() | after.keys()):
        for row in sorted(before.get(place, frozenset()) ^ after.get(place, frozenset())):
            if any(each in row for each in explained):
                continue
            if place in tables and any(
                (*place, *each) in carriers for each in json.loads(row).items() if isinstance(each[1], str | int)
            ):
                continue
            side = "is new" if row in after.get(place, ()) else "is gone"
            yield f"{'.'.join(place)}: a row {side} though no accepted call is about it: {row[:600]}"
