"""What legs post: in the transactions that move them, by the bank's word, before a bank that the test plays; and what the real bank's book says of the same."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
import yaml
from bank_samples import DEBTOR, booking, one_status, resolution, status_report
from courier_bench import Bench, bench_over, phase_of
from pydantic import ValidationError
from real_bank import PAYEE, RICH, Gateway, outcome_of, refusal_of, transfer

from bank_gateway.gateway import LIMIT_REACHED
from bank_gateway.ledger.lines import CreditLines
from bank_gateway.rail import NoAnswer, TurnedDown
from bank_gateway.settings import BankGatewaySettings, CreditLimit
from lockstep_kit import failpoints
from lockstep_kit.failpoints import FailpointRaised
from lockstep_kit.fence import Phase
from lockstep_testkit import factories
from lockstep_testkit.databases import TestDatabase

Making = Callable[..., Awaitable[TestDatabase]]


@pytest_asyncio.fixture(loop_scope="session")
async def bench(database_for: Making) -> AsyncIterator[Bench]:
    async with bench_over(await database_for("bank_gateway")) as opened:
        yield opened


async def rows(bench: Bench, query: str, *arguments: Any) -> list[Any]:
    async with bench.db.connection() as connection:
        return list(await connection.fetch(query, *arguments))


async def books(bench: Bench) -> dict[str, int]:
    """Balances of all accounts, kind by kind."""
    found = await rows(bench, "select kind, balance from ledger_account where balance <> 0")
    return {row["kind"]: row["balance"] for row in found}


async def posted(bench: Bench) -> list[str]:
    return [row["kind"] for row in await rows(bench, "select kind from ledger_entry order by sequence")]


async def states(bench: Bench) -> list[str]:
    return [row["state"] for row in await rows(bench, "select state from bank_outbox order by id")]


def owed(bench: Bench) -> int:
    terms: Any = bench.plan.leg("cash").terms
    return int(terms.amount.minor_units)


async def test_asked_held_settled(bench: Bench) -> None:
    """The amount goes from the line to what is asked for, to what is held, to what is settled: each by the word that says so, and not before."""
    minor = owed(bench)
    await bench.prepare()
    assert await books(bench) == {"LINE": -minor, "INSTRUCTED": minor}
    await bench.told(status_report(one_status("ACFW")))
    assert await books(bench) == {"LINE": -minor, "HELD": minor}
    await bench.commit()
    await bench.told(status_report(one_status("ACSC")))
    assert await books(bench) == {"LINE": -minor, "HELD": minor}
    await bench.told(booking())
    assert await books(bench) == {"LINE": -minor, "SETTLED": minor}
    await bench.told(booking(), status_report(one_status("ACSC")), status_report(one_status("ACFW")))
    assert await posted(bench) == ["INSTRUCTED", "HELD", "SETTLED"]


@pytest.mark.parametrize("before", [[], [status_report(one_status("ACFW"))]])
async def test_given_up(bench: Bench, before: list[bytes]) -> None:
    """Cancelled by the bank's word, asked for or held: all of it goes back to the line, when the bank says so and not when we ask."""
    await bench.prepare()
    await bench.told(*before)
    await bench.abort()
    assert -(await books(bench))["LINE"] == owed(bench)
    assert phase_of(await bench.told(resolution("CNCL", "ACCR"))) is Phase.RELEASED
    assert await books(bench) == {}


@pytest.mark.parametrize("words", [["RJCT"], ["ACFW", "RJCT"]])
async def test_refused(bench: Bench, words: list[str]) -> None:
    """A NO and a hold that ends give back what was drawn."""
    await bench.prepare()
    for word in words:
        await bench.told(status_report(one_status(word, "AC04" if word == "RJCT" else "")))
    assert await books(bench) == {}


async def test_turned_down_by_the_rail(bench: Bench) -> None:
    """A payment that the bank does not even take is given back with the NO."""
    bench.bank.handovers = [TurnedDown("400", "amount", "must be smaller")]
    await bench.prepare()
    assert phase_of(await bench.record()) is Phase.REFUSED
    assert (await books(bench), await posted(bench)) == ({}, ["INSTRUCTED", "RELEASED"])


async def test_settled_after_it_was_given_up(bench: Bench) -> None:
    """What the bank did without our asking is on the books, out of suspense and not out of the line."""
    await bench.prepare()
    await bench.abort()
    await bench.told(resolution("CNCL", "ACCR"), status_report(one_status("ACSC")), booking())
    assert phase_of(await bench.record()) is Phase.COMMITTED
    assert await books(bench) == {"SUSPENSE": -owed(bench), "SETTLED": owed(bench)}


async def test_booked_back(bench: Bench) -> None:
    """A booking that is reversed gives the money back, once, and stays a person's matter; the leg says what was signed."""
    await bench.prepare()
    await bench.told(status_report(one_status("ACFW")))
    await bench.commit()
    await bench.told(status_report(one_status("ACSC")), booking())
    back = booking(side="CRDT", reversal="<RvslInd>true</RvslInd>")
    told = await bench.told(back, back.replace(b"ANSWER1", b"ANSWER2"))
    assert "reversed" in told.trouble
    assert await books(bench) == {}
    assert await posted(bench) == ["INSTRUCTED", "HELD", "SETTLED", "RETURNED"]


async def test_charges_have_accounts_of_their_own(bench: Bench) -> None:
    """What the bank takes for a booking, besides its amount, is on the fees' account; the principal stays whole, and the same word again adds nothing."""
    charges = (
        '<Chrgs><Rcrd><Amt Ccy="EUR">1.20</Amt></Rcrd><Rcrd><Amt Ccy="EUR">0.30</Amt><CdtDbtInd>DBIT</CdtDbtInd></Rcrd>'
        '<Rcrd><Amt Ccy="EUR">9.99</Amt><ChrgInclInd>true</ChrgInclInd></Rcrd><Rcrd><Amt Ccy="EUR">0.00</Amt></Rcrd></Chrgs>'
    )
    minor = owed(bench)
    await bench.prepare()
    await bench.told(status_report(one_status("ACFW")))
    await bench.commit()
    word = booking(charges=charges)
    await bench.told(status_report(one_status("ACSC")), word, word.replace(b"ANSWER1", b"ANSWER2"))
    assert await books(bench) == {"LINE": -minor, "SETTLED": minor, "NOSTRO": -150, "FEES": 150}


async def test_posted_with_the_leg_or_not_at_all(bench: Bench) -> None:
    """A command and a delivery that die before their commit leave neither phase nor message nor entry, and are done once when they come again."""
    for step in ("prepare.in_tx", "receive.in_tx"):
        failpoints.arm(f"bank-gateway.{step}=raise@1")
        try:
            with pytest.raises(FailpointRaised):
                await (bench.prepare() if step.startswith("prepare") else bench.told(status_report(one_status("ACFW"))))
        finally:
            failpoints.arm("")
        if step.startswith("prepare"):
            assert (await posted(bench), await states(bench)) == ([], [])
            await bench.prepare()
        else:
            assert await posted(bench) == ["INSTRUCTED"]
            await bench.courier.receive()
    assert phase_of(await bench.record()) is Phase.PREPARED
    assert await posted(bench) == ["INSTRUCTED", "HELD"]


# -- Limits ----------------------------------------------------------------------------------------------------------


def limited(minor_text: str) -> CreditLimit:
    return CreditLimit(account=factories.credit_terms(1).debtor.iban, currency="EUR", limit=minor_text)


async def test_limit_denies_before_the_bank_is_asked(database_for: Making) -> None:
    """Beyond the debtor's limit a Prepare is a signed NO, LIQUIDITY_DENIED, and nothing is sent; what is given back can be drawn by the next."""
    async with bench_over(await database_for("bank_gateway"), credit_limits=(limited("150.00"),)) as bench:
        await CreditLines(bench.db, bench.settings).limit()
        first, second, third = (replace(bench, plan=factories.delivery_versus_payment()) for _ in range(3))
        assert owed(first) == 100_00
        await first.prepare()
        await second.prepare()
        refusal = refusal_of(await second.record())
        assert (refusal.reason, refusal.outside_code) == (LIMIT_REACHED.reason, "AM23")
        assert phase_of(await second.record()) is Phase.REFUSED
        assert [name for name, _ in bench.bank.sent] == [first.names.message_id]
        assert await books(bench) == {"LINE": -100_00, "INSTRUCTED": 100_00}
        await first.told(status_report(one_status("RJCT", "AC04")))
        await third.prepare()
        assert phase_of(await third.record()) is Phase.PREPARING


@pytest.mark.parametrize(
    ("limits", "rule"),
    [
        ([("DE00", "EUR", "1.00")], "IBAN"),
        ([(RICH, "EUR", "1.001")], "decimals"),
        ([(RICH, "EUR", "0")], "greater than zero"),
        ([(RICH, "EUR", "-1")], "decimal"),
        ([(RICH, "ZZZ", "1.00")], "ISO 4217"),
        ([(RICH, "EUR", "10000000000000000.00")], "18 digits"),
        ([(RICH, "EUR", "1.00"), (RICH, "EUR", "2.00")], "once"),
    ],
)
def test_limits_that_are_none(limits: list[tuple[str, str, str]], rule: str) -> None:
    """A limit that says nothing clear is refused at the start, by field and rule."""
    given = [{"account": account, "currency": currency, "limit": text} for account, currency, text in limits]
    with pytest.raises(ValidationError, match=rule) as refused:
        BankGatewaySettings.model_validate({"credit_limits": given})
    assert any(each["loc"][0] == "credit_limits" and rule in each["msg"] for each in refused.value.errors())


async def test_limits_follow_the_settings(database_for: Making) -> None:
    """A limit that is no longer in the settings is gone with the next start, and without any nothing is refused."""
    database = await database_for("bank_gateway")
    for limits, phase in (((limited("1.00"),), Phase.REFUSED), ((), Phase.PREPARING)):
        async with bench_over(database, credit_limits=limits) as bench:
            await CreditLines(bench.db, bench.settings).limit()
            await bench.prepare()
            assert phase_of(await bench.record()) is phase


async def test_line_is_repaid_the_day_after(database_for: Making, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was settled yesterday is repaid once today, by whichever replica; what is settled today, or still held, is not."""
    async with bench_over(await database_for("bank_gateway"), credit_limits=(limited("1000.00"),)) as bench:
        lines, other = CreditLines(bench.db, bench.settings), CreditLines(bench.db, bench.settings)
        await lines.limit()
        settled, held = (replace(bench, plan=factories.delivery_versus_payment()) for _ in range(2))
        for each in (settled, held):
            await each.prepare()
            await each.told(status_report(one_status("ACFW")))
        await settled.commit()
        before = datetime.now(UTC)
        await settled.told(status_report(one_status("ACSC")), booking())
        # Both moments are told: by the machine's clock it may be midnight in between.
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        moment = before

        async def told() -> datetime:
            return moment

        monkeypatch.setattr(bench.db, "now", told)
        await lines.repay()
        assert (await books(bench))["LINE"] == -200_00
        moment = tomorrow
        await asyncio.gather(lines.repay(), other.repay())
        await lines.repay()
        assert await books(bench) == {"LINE": -100_00, "HELD": 100_00, "SETTLED": 100_00, "NOSTRO": -100_00}
        assert (await posted(bench)).count("REPAID") == 1


# -- The outbox ------------------------------------------------------------------------------------------------------


async def test_message_is_settled_when_its_leg_is_over(bench: Bench, database_for: Making) -> None:
    """ACKED until the leg has come to its end, and then SETTLED; the database refuses it before, and any way back."""
    del database_for
    await bench.prepare()
    await bench.told(status_report(one_status("ACFW")))
    await bench.courier.settle()
    assert await states(bench) == ["ACKED"]
    async with bench.db.connection() as connection:
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="at its end"):
            await connection.execute("update bank_outbox set state = 'SETTLED'")
    await bench.commit()
    await bench.told(status_report(one_status("ACSC")), booking())
    assert await states(bench) == ["ACKED", "ACKED"]
    await bench.courier.settle()
    assert await states(bench) == ["SETTLED", "SETTLED"]
    async with bench.db.connection() as connection:
        for state in ("QUEUED", "SENT", "ACKED", "FAILED"):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="never"):
                await connection.execute("update bank_outbox set state = $1", state)


async def test_no_more_is_in_flight_than_allowed(database_for: Making) -> None:
    """While nobody knows of so many messages whether the bank has them, nothing new goes out; what was tried before is tried again and makes room."""
    async with bench_over(await database_for("bank_gateway"), in_flight_max=2) as bench:
        several = [replace(bench, plan=factories.delivery_versus_payment()) for _ in range(4)]
        bench.bank.handovers.extend(NoAnswer("timeout") for _ in range(1_000))
        for each in several:
            await each.prepare()
        assert await states(bench) == ["SENT", "SENT", "QUEUED", "QUEUED"]
        bench.bank.handovers.clear()
        for _ in range(1200):
            await bench.courier.send_due()
            if await states(bench) == ["ACKED"] * 4:
                break
            await asyncio.sleep(0.1)
        assert await states(bench) == ["ACKED"] * 4
        names = [each.names.message_id for each in several]
        # Those that become free together go out together.
        assert sorted(name for name, _ in bench.bank.sent if name in names[2:]) == sorted(names[2:])


# -- The real bank ---------------------------------------------------------------------------------------------------


async def test_books_are_the_bank_s_book(gateway: Gateway) -> None:
    """What the ledger holds and has settled of a debtor is what the bank's own book holds and booked, leg by leg."""
    before = await gateway.bank.get(f"/accounts/{RICH}")
    plans = [transfer(10_00 + number) for number in range(9)]
    for plan in plans:
        await gateway.held(plan)
    held = sum(10_00 + number for number in range(9))
    assert await gateway.on_the_books(RICH) == {"LINE": -held, "HELD": held}
    assert (await gateway.bank.get(f"/accounts/{RICH}"))["held_minor"] - before["held_minor"] == held
    for number, plan in enumerate(plans[:6]):
        await (gateway.commit(plan) if number % 2 else gateway.abort(plan))
    for number, plan in enumerate(plans[:6]):
        await gateway.reaches(plan, Phase.COMMITTED if number % 2 else Phase.RELEASED)
    settled, rest = sum(10_00 + number for number in (1, 3, 5)), sum(10_00 + number for number in (6, 7, 8))
    assert await gateway.on_the_books(RICH) == {"LINE": -settled - rest, "HELD": rest, "SETTLED": settled}
    after = await gateway.bank.get(f"/accounts/{RICH}")
    assert (before["booked_minor"] - after["booked_minor"], after["held_minor"] - before["held_minor"]) == (settled, rest)
    assert outcome_of(await gateway.record(plans[1])).evidence is not None
    assert (await gateway.bank.booked(plans[1]))[PAYEE] == 10_01
    for plan in plans[6:]:
        await gateway.abort(plan)
        await gateway.reaches(plan, Phase.RELEASED)


# -- The command -----------------------------------------------------------------------------------------------------


async def audited(configuration: Path) -> tuple[int, str]:
    command = (sys.executable, "-m", "bank_gateway.ledger", "--config", str(configuration))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    shown, _ = await asyncio.wait_for(process.communicate(), 240)
    return process.returncode or 0, shown.decode()


async def test_command_shows_and_judges(database_for: Making, tmp_path: Path) -> None:
    """The command prints every account and exits with 0; with 1 and a sentence when a leg and the ledger differ."""
    database = await database_for("bank_gateway")
    configuration = tmp_path / "settings.yaml"
    nothing = dict.fromkeys(("certificate_file", "key_file", "ca_file"), "none")
    settings = {
        "database": {"url": database.settings.url, "password_file": str(database.settings.password_file)},
        "tls": nothing, "participant": {"signing_key_file": "none", "registry_file": "none"}, "own_bic": "LCKSDEFFXXX",
        "bank_bic": "COBADEFF", "currencies": ["EUR"], "rail": {"http": {"url": "https://none"}}, "schemas": "none",
    }  # fmt: skip
    configuration.write_text(yaml.safe_dump(settings))
    async with bench_over(database) as bench:
        await bench.prepare()
        status, shown = await audited(configuration)
        assert status == 0
        assert f'"account": "{DEBTOR}/INSTRUCTED", "balance_minor": {owed(bench)}' in shown
        await bench.told(status_report(one_status("ACFW")))
        async with database.as_owner() as owner:
            await owner.execute("""update bank_payment set status = status || '{"status": "ACSC", "booking_reference": "B"}'""")
            status, shown = await audited(configuration)
            assert (status, shown.count('"wrong"')) == (1, 1)
            await owner.execute("""update bank_payment set status = status || '{"status": "ACFW", "booking_reference": ""}'""")
