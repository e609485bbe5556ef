"""The gateway dies at every one of its failpoints: a new one goes on from the rows, and the bank books each payment once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from real_bank import PAYEE, RICH, Gateway, transfer, until

from bank_gateway import courier
from lockstep_kit import failpoints
from lockstep_kit.failpoints import FailpointRaised
from lockstep_kit.fence import Phase
from lockstep_kit.participant.engine import declare_failpoints
from lockstep_testkit.factories import PlanCase

OWN = ("send.after_claim", "send.after_send", "send.after_commit", "receive.in_tx", "receive.after_commit", "complete.in_tx")
#: Tried with a statement, in test_statements.
RECONCILING = ("reconcile.in_tx", "reconcile.after_commit")
COMMANDS = ("prepare", "commit", "abort", "reverse")
ENGINE = tuple(f"{command}.{where}" for command in COMMANDS for where in ("before_tx", "in_tx", "after_commit"))


def test_every_failpoint_is_tried() -> None:
    """A place at which the gateway can die is in one of the lists here."""
    declare_failpoints("bank-gateway")
    declared = {name.removeprefix("bank-gateway.") for name in failpoints.failpoint_names() if name.startswith("bank-gateway.")}
    # Those of the file rail are tried in test_rails, those of the readmission in test_quarantine.
    assert {name for name in declared if not name.startswith(("file_rail.", "readmit."))} == {*OWN, *RECONCILING, *ENGINE}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a dead gateway had claimed is free again soon."""
    monkeypatch.setattr(courier, "CLAIM_LEASE", courier.CLAIM_LEASE / 6)


async def survived(gateway: Gateway, command: Callable[[PlanCase], Awaitable[object]], plan: PlanCase, phase: Phase) -> int:
    """Give a command until the leg is there, with a new gateway whenever one died; returns how often one did."""
    deaths = 0

    async def there() -> bool:
        nonlocal deaths
        dying = asyncio.ensure_future(gateway.ended())
        try:
            await command(plan)
            if dying.done():
                dying.result()
            if await gateway.phase(plan) is phase:
                return True
            await asyncio.wait([dying], timeout=0.2)
            if dying.done():
                dying.result()
        except FailpointRaised:
            deaths += 1
            await gateway.close()
            await gateway.open()
        finally:
            dying.cancel()
        return False

    await until(there, f"{phase} in spite of {deaths} deaths")
    return deaths


async def late_death(gateway: Gateway) -> int:
    """One more death: of what it heard when the leg was there already. A new gateway is opened."""
    with pytest.raises(FailpointRaised):
        await asyncio.wait_for(gateway.ended(), 240)
    await gateway.close()
    await gateway.open()
    return 1


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("name", OWN + ENGINE[:6])
async def test_dies_and_settles(gateway: Gateway, name: str, nth: int) -> None:
    """Dead at a place, for the first, second or third time that it is passed: prepared, committed, booked once."""
    plan = transfer()
    failpoints.arm(f"bank-gateway.{name}=raise@{nth}")
    try:
        deaths = await survived(gateway, gateway.prepare, plan, Phase.PREPARED)
        deaths += await survived(gateway, gateway.commit, plan, Phase.COMMITTED)
        passed = failpoints.passed()[f"bank-gateway.{name}"]
    finally:
        failpoints.arm("")
    if passed >= nth and deaths == 0:
        deaths = await late_death(gateway)
    assert deaths == (1 if passed >= nth else 0)
    assert await gateway.bank.booked(plan) == {RICH: -100_00, PAYEE: 100_00}
    assert await gateway.bank.postings(plan) == ["HOLD", "SETTLE"]
    assert (await gateway.record(plan)).trouble == ""
    repeated = [message for message in await gateway.bank.received(plan) if message["repeat_of"] and message["kind"] != "release"]
    assert all("<PssblDplct>true</PssblDplct>" in message["body"] for message in repeated)
    kept = [row["octets"] for row in await gateway.kept(plan, "IN")]
    assert set(kept) <= {message["body"].encode() for message in await gateway.bank.sent(plan)}
    assert len(set(kept)) == len(kept)


@pytest.mark.parametrize("name", [*OWN, *ENGINE[:3], *ENGINE[6:9]])
async def test_dies_and_releases(gateway: Gateway, name: str) -> None:
    """Dead at a place while a prepared leg is given up: released, and the money is where it was."""
    plan = transfer()
    failpoints.arm(f"bank-gateway.{name}=raise@{2 if name in OWN else 1}")
    try:
        deaths = await survived(gateway, gateway.prepare, plan, Phase.PREPARED)
        deaths += await survived(gateway, gateway.abort, plan, Phase.RELEASED)
        if deaths == 0:
            deaths = await late_death(gateway)
    finally:
        failpoints.arm("")
    assert deaths == 1
    assert await gateway.bank.state(plan) == "CANCELLED"
    assert await gateway.bank.booked(plan) == {}
    assert await gateway.bank.postings(plan) == ["HOLD", "RELEASE"]


@pytest.mark.parametrize("name", [*OWN, *ENGINE[:9]])
@pytest.mark.parametrize("profile", ["reservation", "plain"])
async def test_dies_where_the_payment_is_kept_unsent(gateway: Gateway, profile: str, name: str) -> None:
    """Dead at a place in another profile, once while a leg settles and once while one is given up: booked once, or never sent."""
    gateway.changes = {"profile": profile}
    await gateway.close()
    await gateway.open()
    for finish, phase, booked in (
        (gateway.commit, Phase.COMMITTED, {RICH: -100_00, PAYEE: 100_00}),
        (gateway.abort, Phase.RELEASED, {}),
    ):
        plan = transfer()
        failpoints.arm(f"bank-gateway.{name}=raise@1")
        try:
            await survived(gateway, gateway.prepare, plan, Phase.PREPARED)
            await survived(gateway, finish, plan, phase)
        finally:
            failpoints.arm("")
        assert await gateway.bank.booked(plan) == booked
        assert (await gateway.record(plan)).trouble == ""
        assert await gateway.bank.reservation(plan) in (None, "PAID", "DELETED")
    await gateway.bank.sound()


@pytest.mark.parametrize("name", ENGINE[9:])
async def test_dies_and_stays_paid(gateway: Gateway, name: str) -> None:
    """Dead at a place while an executed leg is to be reversed: refused, and the money stays where the bank booked it."""
    plan = transfer()
    await gateway.held(plan)
    await gateway.commit(plan)
    settled = await gateway.reaches(plan, Phase.COMMITTED)
    failpoints.arm(f"bank-gateway.{name}=raise@1")
    try:
        with pytest.raises(FailpointRaised):
            await gateway.reverse(plan)
        await gateway.close()
        await gateway.open()
        answer = await gateway.reverse(plan)
    finally:
        failpoints.arm("")
    record = await gateway.record(plan)
    assert (answer.rejection, record.fence.phase, record.outcome, record.trouble) == (None, Phase.COMMITTED, settled.outcome, "")
    assert record.reversal is not None
    assert await gateway.bank.booked(plan) == {RICH: -100_00, PAYEE: 100_00}
