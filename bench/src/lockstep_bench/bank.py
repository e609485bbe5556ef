"""`make bench-bank`: the bank-gateway's own work by itself: its ledger on a real Postgres, and the messages that it writes and reads.

Postings go through the gateway's store as the legs' do, each call one transaction that is durable before the next. Messages are built and validated against
the official schemas, and read as they come from a bank; both on one core.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from bank_gateway.iso20022 import reader, writer
from bank_gateway.iso20022.schemas import Schemas
from bank_gateway.ledger import __main__ as ledger
from bank_gateway.ledger import rules, store
from bank_gateway.ledger.rules import Entry, LedgerLeg
from bank_gateway.messages import Envelope, Payment, Side
from bank_gateway.operations import Known
from bank_gateway.references import references
from lockstep_bench.stopping import STOPPED, unless_stopped
from lockstep_kit.amounts import amount_from_text
from lockstep_kit.db import Database, DatabaseSettings
from lockstep_kit.ids import LegId, PlanId
from lockstep_sandbox.databases import SandboxDatabases, migrate
from lockstep_sandbox.runtime import RuntimeDirectory
from lockstep_sandbox.up import BASE
from lockstep_testkit.simulation import bank_messages
from lockstep_testkit.simulation.bank_messages import Header, Names

PACKAGE: Final = "bank_gateway"
BATCH: Final = 100
DEBTORS_COUNT: Final = 50
#: What is promised on two cores, per second.
BARS: Final = {"postings_batched": 5_000, "messages_built_and_validated": 1_500}
NOW: Final = datetime(2031, 3, 3, 9, 0, tzinfo=UTC)
_DEBTOR, _CREDITOR = "DE89370400440532013000", "DE75512108001245126199"


def legs(count: int, start: int) -> list[LedgerLeg]:
    """Payments of many debtors of one bank, in one currency."""
    return [
        LedgerLeg(
            "COBADEFF/EUR", f"BENCH{number % DEBTORS_COUNT:020d}", f"00000000-0000-4000-8000-{start + number:012x}", 100 + number
        )
        for number in range(count)
    ]


def life(count: int, start: int) -> tuple[list[Entry], list[Entry], list[Entry]]:
    """Three entries of each leg: instructed, held, settled; each kind after the one before."""
    of = legs(count, start)
    histories = [[rules.instructed(leg)] for leg in of]
    for known in (Known(status="ACFW"), Known(status="ACSC", booking_reference="B")):
        for leg, history in zip(of, histories, strict=True):
            entry = rules.heard(leg, rules.standing(history), known, None)
            if entry is None:
                raise AssertionError("a leg goes on")
            history.append(entry)
    asked, held, settled = (list(entries) for entries in zip(*histories, strict=True))
    return asked, held, settled


async def measure_postings(db: Database, count: int) -> dict[str, float]:
    """Postings in a second: one in a transaction, a hundred in one, and a hundred in one by four posters at the same time."""
    found: dict[str, float] = {}
    for name, size, posters, total in (
        ("postings_single", 1, 1, max(count // 20, 30)),
        ("postings_batched", BATCH, 1, count),
        ("postings_batched_by_four", BATCH, 4, count),
    ):
        shares = []
        for poster in range(posters):
            start = (len(found) * posters + poster + 1) * count * 10
            kinds = life(total // posters // 3, start)
            shares.append([entries[at : at + size] for entries in kinds for at in range(0, len(entries), size)])
        posted = sum(len(batch) for share in shares for batch in share)
        began = time.perf_counter()
        await asyncio.gather(*(_post(db, share) for share in shares))
        found[name] = posted / (time.perf_counter() - began)
    _, wrong = await ledger.audit(db)
    if wrong:
        raise AssertionError(wrong[0])
    return found


async def _post(db: Database, batches: Sequence[Sequence[Entry]]) -> None:
    for batch in batches:
        async with db.transaction() as tx:
            await store.post(tx, batch)


def payments(count: int) -> Iterator[tuple[Envelope, Payment]]:
    """Payments that differ."""
    for number in range(count):
        names = references(PlanId(f"bench-{number}"), LegId("cash"))
        yield (
            Envelope("LCKSDEFFXXX", "COBADEFF", names.message_id, NOW),
            Payment(
                references=names,
                amount=amount_from_text("EUR", f"{100 + number}.25", 2),
                settlement_date=NOW.date(),
                debtor=Side("Buyer AG", _DEBTOR, "COBADEFF"),
                creditor=Side("Seller GmbH", _CREDITOR, "COBADEFF"),
                charge_bearer="SHAR",
                remittance=f"INVOICE {number}",
                lock=number.to_bytes(32),
                expires_at=NOW + timedelta(hours=6),
            ),
        )


def measure_messages(schemas: Schemas, count: int) -> dict[str, float]:
    """Messages in a second: payments built and validated; statuses and bookings parsed, validated and checked."""
    asked = list(payments(count))
    said: list[bytes] = []
    for number, (_, each) in enumerate(asked):
        names = each.references
        about = Names(names.message_id, names.instruction_id, names.end_to_end_id, names.transaction_id, names.uetr)
        header = Header(f"A{number}", NOW)
        if number % 2:
            said.append(bank_messages.status(header, about, "ACSC", key=each.lock))
        else:
            said.append(bank_messages.booking(header, about, _DEBTOR, each.amount.minor_units, f"B{number}", names.uetr))
    return {
        "messages_built_and_validated": _rate(count, lambda: [writer.payment(*each, schemas) for each in asked]),
        "messages_parsed_and_validated": _rate(count, lambda: [reader.read(octets, schemas) for octets in said]),
    }


def _rate(count: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured."""
    run = RuntimeDirectory.create(BASE)
    folder = run.path / "bench-bank"
    folder.mkdir(mode=0o700)
    async with AsyncExitStack() as stack:
        databases = await stack.enter_async_context(SandboxDatabases(folder, "bench"))
        login = await databases.create(PACKAGE)
        await migrate([(PACKAGE, login)])
        database = DatabaseSettings(url=login.url, password_file=login.password_file)
        db = await Database.connect(database, application_name="bank-gateway")
        stack.push_async_callback(db.close)
        found = await measure_postings(db, options.postings)
    root = next(parent for parent in Path(__file__).parents if (parent / ".schemas" / "xsd").is_dir())
    found |= measure_messages(Schemas(root / ".schemas" / "xsd"), options.messages)
    return {"cores": os.cpu_count(), "batch": BATCH, "rates_per_second": {name: round(value, 1) for name, value in found.items()}}


def show(result: dict[str, Any]) -> None:
    """The table."""
    print(f"\n== Per second, {result['cores']} cores ==")
    for name, value in result["rates_per_second"].items():
        print(f"  {name:32} {value:>10,.0f}   {f'bar {BARS[name]:,}' if name in BARS else ''}")


async def bench(options: argparse.Namespace) -> int:
    """The exit code: 1 where a bar is missed."""
    result = await unless_stopped(measure(options))
    if result is None:
        return STOPPED
    show(result)
    print(f"BENCH_BANK_RESULT {json.dumps(result)}", flush=True)
    return 0 if all(result["rates_per_second"][name] >= bar for name, bar in BARS.items()) else 1


def main() -> int:
    """Read the options and measure."""
    options = argparse.ArgumentParser(prog="lockstep_bench.bank", description=__doc__)
    options.add_argument("--postings", type=int, default=30_000, help="entries that are posted in batches")
    options.add_argument("--messages", type=int, default=5_000, help="messages that are written and read")
    return asyncio.run(bench(options.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
