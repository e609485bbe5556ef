"""What a running sandbox has used so far, read from outside: the kernel, Postgres' statistics, the services' counters, the chain."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lockstep_bench import meters
from lockstep_bench.people import VALIDATOR
from lockstep_sandbox.deployment import SIGNERS
from lockstep_sandbox.stack import BANK, SERVICES, Sandbox
from lockstep_testkit.ownership import as_owner

POSTGRES: Final = "postgres"
DRIVERS: Final = "drivers"
#: What is on the client's side: it runs beside Lockstep because the bench has one machine.
CLIENTS: Final = (DRIVERS, VALIDATOR)
#: Octets of a database on disk, and how far the server's log of writes has come, all databases' together.
OCTETS: Final = "SELECT pg_database_size(current_database()), pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"
#: Commits of each database, whoever asks.
COMMITS: Final = "SELECT datname, xact_commit FROM pg_stat_database WHERE datname = ANY($1)"


@dataclass(frozen=True, slots=True)
class Costs:
    """Counters that only grow."""

    #: Process -> processor seconds, user and system.
    processor_seconds: dict[str, float]
    #: Database -> committed transactions, reads included.
    commits: dict[str, int]
    #: Service -> method -> calls that it received.
    calls: dict[str, Counter[str]]
    #: Service -> transactions of its accounts on chain.
    chain_transactions: dict[str, int]
    #: The latest block.
    height: int
    #: Service -> octets of its database on disk.
    octets: dict[str, int]
    #: Octets that Postgres has written to its log.
    logged_octets: int


async def costs(sandbox: Sandbox, drivers: Sequence[int] = ()) -> Costs:
    """Everything used up to now; `drivers` are processes of the bench's own. What Postgres' sessions have not handed in (a second's work) is missing."""
    used = {name: _processor_seconds(_tree(sandbox.supervisor.pid(name))) for name in sandbox.supervisor.names()}
    used |= {POSTGRES: postgres_processor_seconds(), DRIVERS: _processor_seconds(drivers)}
    calls, height = await meters.calls(sandbox), await meters.height(sandbox)
    transactions = {service: sum([await _nonce(sandbox, name) for name in names]) for service, names in SIGNERS.items()}
    (octets, logged), commits = await _octets(sandbox), await _commits(sandbox)
    return Costs(used, commits, calls, transactions, height, octets, logged)


async def per_settlement(sandbox: Sandbox, before: Costs, after: Costs, settlements: int) -> dict[str, Any]:
    """What each settlement took, with polling, heartbeats and everything else that ran meanwhile; with what the chain's blocks say."""
    mined = await meters.blocks(sandbox, before.height, after.height)
    return {
        **counted(before, after, settlements),
        "gas_per_settlement": round(mined["gas"] / settlements),
        "transactions_per_block": round(mined["transactions"] / max(mined["blocks"], 1), 2),
    }


def counted(before: Costs, after: Costs, settlements: int) -> dict[str, Any]:
    """What each settlement took, by the counters alone."""
    used = _differences(before.processor_seconds, after.processor_seconds)
    own = {name: seconds for name, seconds in used.items() if name not in CLIENTS}
    calls = {service: sum(told.values()) for service, told in after.calls.items()}
    called = {service: sum(told.values()) for service, told in before.calls.items()}
    return {
        "processor_seconds_per_settlement": _shares(own, settlements),
        "client_processor_seconds_per_settlement": _shares({name: used[name] for name in CLIENTS if name in used}, settlements),
        "commits_per_settlement": _shares(_differences(before.commits, after.commits), settlements),
        "rpcs_per_settlement": _shares(_differences(called, calls), settlements),
        "rpcs_by_method_per_settlement": _methods(before.calls, after.calls, settlements),
        "chain_transactions_per_settlement": _shares(
            _differences(before.chain_transactions, after.chain_transactions), settlements
        ),
        "database_octets_per_settlement": _shares(_differences(before.octets, after.octets), settlements),
        "logged_octets_per_settlement": {"total": round((after.logged_octets - before.logged_octets) / settlements)},
    }


def resident_bytes(sandbox: Sandbox) -> dict[str, int]:
    """Resident memory by process, the clients' left out; Postgres' shared pages count once (proportional set size, proc(5))."""
    found = {name: size for name, size in sandbox.supervisor.resident_bytes().items() if name not in CLIENTS}
    return {**found, POSTGRES: sum(_proportional_bytes(pid) for pid in _postgres())}


def postgres_processor_seconds() -> float:
    """Processor seconds of the server that this process started, user and system."""
    return _processor_seconds(_postgres())


def _differences(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {name: after[name] - before[name] for name in after if name in before}


def _shares(used: Mapping[str, float], count: int) -> dict[str, float]:
    """Shares of a settlement, and their sum."""
    return {**{name: round(value / count, 4) for name, value in used.items()}, "total": round(sum(used.values()) / count, 4)}


def _methods(before: Mapping[str, Counter[str]], after: Mapping[str, Counter[str]], count: int) -> dict[str, float]:
    """Method -> calls of a settlement, the most frequent first."""
    found: Counter[str] = Counter()
    for service, told in after.items():
        found.update(told - before.get(service, Counter()))
    return {f"{method.rsplit('.', 1)[-1]}": round(calls / count, 3) for method, calls in found.most_common()}


async def _commits(sandbox: Sandbox) -> dict[str, int]:
    names = {each.url.rsplit("/", 1)[1]: package for package, each in sandbox.databases.logins.items()}
    async with as_owner(sandbox, BANK) as connection:
        return {names[row["datname"]]: int(row["xact_commit"]) for row in await connection.fetch(COMMITS, list(names))}


async def _octets(sandbox: Sandbox) -> tuple[dict[str, int], int]:
    found, logged = {}, 0
    for service in SERVICES:
        async with as_owner(sandbox, service) as connection:
            ((octets, written),) = await connection.fetch(OCTETS)
            found[service], logged = int(octets), int(written)
    return found, logged


async def _nonce(sandbox: Sandbox, name: str) -> int:
    return int(str(await sandbox.chain.node.call("eth_getTransactionCount", sandbox.chain.address(name), "latest")), 16)


def _parents() -> dict[int, int]:
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            found[int(entry.name)] = int(fields[1])
    return found


def _tree(root: int) -> list[int]:
    parents = _parents()
    found = [root]
    for pid in found:
        found.extend(child for child, parent in parents.items() if parent == pid)
    return found


def _postgres() -> list[int]:
    """The server, which is a child of this process, with its own children."""
    for child, parent in _parents().items():
        if parent == os.getpid() and Path(f"/proc/{child}/comm").read_text().strip() == POSTGRES:
            return _tree(child)
    raise RuntimeError("the Postgres server is gone")


def _stat(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat from the third on; none when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _processor_seconds(pids: Sequence[int]) -> float:
    """User and system time, children that were waited for included (fields 14 to 17 of proc(5))."""
    ticks = sum(int(value) for pid in pids for value in _stat(pid)[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def _proportional_bytes(pid: int) -> int:
    try:
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0
