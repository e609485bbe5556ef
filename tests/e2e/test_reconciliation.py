"""A day of the bank's, reconciled three ways with the command: the bank's statements, the coordinator's evidence, the chain's."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from lockstep_sandbox import outside, scene
from lockstep_sandbox.stack import Sandbox
from lockstep_testkit.command_line import lockstep
from lockstep_testkit.crew import Crew

SECONDS_MAX = 180.0


async def reconcile(sandbox: Sandbox, day: str, *arguments: str) -> tuple[int, str]:
    """The command, as a person would run it."""
    code, out, errors = await lockstep("reconcile", "--date", day, *arguments, sandbox=sandbox, seconds_max=SECONDS_MAX)
    assert code in (0, 1), errors
    assert out, errors
    return code, out


async def shown(sandbox: Sandbox, day: str, *, times: int = 1) -> tuple[int, dict[str, Any]]:
    """What the command says once the payer's account was reconciled so often."""
    give_up = time.monotonic() + SECONDS_MAX
    while True:
        code, out = await reconcile(sandbox, day, "--json")
        document: dict[str, Any] = json.loads(out.splitlines()[0])
        done = {each["account"]: each["times"] for each in document["accounts"]}
        if done.get(scene.BUYER.iban, 0) >= times:
            return code, document
        assert time.monotonic() < give_up, f"{day} is not reconciled: {document}"
        await asyncio.sleep(0.2)


def results(document: dict[str, Any], plan_id: str) -> dict[str, str]:
    (plan,) = [each for each in document["plans"] if each["plan_id"] == plan_id]
    return {leg["leg_id"]: leg["result"] for leg in plan["legs"]}


async def test_a_day_is_reconciled_three_ways(sandbox: Sandbox, crew: Crew) -> None:
    """Both legs of a settled plan match on all sides; one that the bank leaves out of its statement is a break with its amount, until the bank corrects it."""
    # Whatever other tests did is on days before.
    await outside.bank_command(sandbox, "/end-of-day", {})
    right = (await crew.settled(crew.payments())).header.plan_id
    wrong = (await crew.settled(crew.payments())).header.plan_id
    async with crew.database("bank-gateway") as database:
        uetr = await database.fetchval("select uetr from bank_payment where plan_id = $1", wrong)
    await outside.bank_command(sandbox, "/misbehaviours", {"kind": "omit_entry", "uetr": uetr, "debtor_account": scene.BUYER.iban})
    day = (await outside.bank_command(sandbox, "/end-of-day", {}))["day"]
    code, document = await shown(sandbox, day)
    assert (code, results(document, right)) == (1, {"bonds": "MATCHED", "cash": "MATCHED"})
    assert results(document, wrong) == {"bonds": "MATCHED", "cash": "BREAK"}
    (found,) = [each for each in document["breaks"] if each["plan_id"] == wrong]
    assert (found["kind"], found["booking_date"], found["asset"]) == ("MISSING_AT_BANK", day, scene.CURRENCY)
    cash = next(leg for plan in document["plans"] if plan["plan_id"] == wrong for leg in plan["legs"] if leg["leg_id"] == "cash")
    assert (found["amount"], found["uetr"]) == (cash["amount"], cash["reference"])
    await outside.bank_command(sandbox, "/statements", {"day": day, "account": scene.BUYER.iban})
    _, document = await shown(sandbox, day, times=2)
    assert results(document, wrong) == {"bonds": "MATCHED", "cash": "MATCHED"}
    assert not [each for each in document["breaks"] if each["plan_id"] in (right, wrong)]
    assert "MATCHED" in (await reconcile(sandbox, day))[1]
