"""`make demo`: starts everything, settles a plan while its status streams, shows the evidence, aborts two more, has a third taken back, stops.

At the end the first plan's bundle of evidence is exported and verified offline. Everything is done with the `lockstep` command, as a person
would; balances are read from the chain and the bank's book. The last line is `DEMO_RESULT ` and one JSON object. Exits non-zero when what is
promised does not hold.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from lockstep_sandbox import outside, scene
from lockstep_sandbox.monitoring import MONITOR, alarms
from lockstep_sandbox.processes import cancel_on_signals
from lockstep_sandbox.runtime import RuntimeDirectory
from lockstep_sandbox.stack import SERVICES, Sandbox
from lockstep_sandbox.up import BASE

STEP_SECONDS_MAX: Final = 120.0
LOOK_SECONDS: Final = 0.1
SPANS_SECONDS_MAX: Final = 15.0
#: Width of tables where there is no terminal that says its own.
COLUMNS: Final = "132"


class DemoFailed(Exception):
    """Something that the demo promises does not hold."""


@dataclass
class Demo:
    """One run over one sandbox."""

    sandbox: Sandbox
    #: What was settled, for the last line.
    plans: list[dict[str, Any]] = field(default_factory=list)

    async def run(self) -> dict[str, Any]:
        """All four plans; the result of the last line."""
        await self.show_balances("Balances before")
        settled = await self.settle()
        await self.show_balances("Balances after")
        services = await self.show_evidence(settled)
        await self.refuse()
        await self.cancel()
        await self.take_back()
        await self.show_nothing_held()
        await self.show_reconciled()
        await self.show_bundle(str(settled["plan_id"]))
        await self.show_monitored()
        return {"plans": self.plans, "trace_services": services, "bundle": "PROVED"}

    # -- the four plans ----------------------------------------------------------------------------------------------

    async def settle(self) -> dict[str, Any]:
        """Delivery versus payment: bonds against euros, approved, released and validated by three other persons."""
        heading("A plan: 100 bonds from the seller, 98 750 euros from the buyer")
        plan_id = await self.create("settled", "Delivery versus payment", "98750.00", scene.BUYER)
        agent = await self.start("agent", "validate", "--plan", plan_id, "--key", self.key("validator"))
        watching = await self.start("watch", plan_id, shown=True)
        await self.lockstep("plan", "execute", plan_id)
        await self.sign_when_awaited(plan_id, "approve", "approver")
        await self.sign_when_awaited(plan_id, "release", "releaser")
        await finished(watching)
        await finished(agent)
        return await self.ended(plan_id, "COMMITTED")

    async def refuse(self) -> None:
        """The bank says no: the payer has no money."""
        heading("A plan that the bank refuses: the payer has 25 euros")
        plan_id = await self.create("refused", "Not enough money", "98750.00", scene.PAUPER)
        watching = await self.start("watch", plan_id, shown=True)
        await self.lockstep("plan", "execute", plan_id)
        await finished(watching, expected=1)
        plan = await self.ended(plan_id, "ABORTED")
        print(f"\n  {plan['reason']}: {plan['reason_detail']}")

    async def cancel(self) -> None:
        """A person thinks better of it, before the release."""
        heading("A plan that is cancelled before its release: every hold is released")
        plan_id = await self.create("cancelled", "Cancelled in time", "500.00", scene.BUYER)
        watching = await self.start("watch", plan_id, shown=True)
        await self.lockstep("plan", "execute", plan_id)
        await self.sign_when_awaited(plan_id, "approve", "approver")
        await self.state_reached(plan_id, "PREPARED")
        held = await outside.escrowed(self.sandbox, scene.BOND.symbol)
        print(f"\n  held in escrow before the cancellation: {held} minor units of {scene.BOND.symbol}", flush=True)
        require(held > 0, "a prepared plan holds tokens in escrow")
        await self.lockstep("plan", "cancel", plan_id, "--key", self.key("releaser"))
        await finished(watching, expected=1)
        await self.ended(plan_id, "ABORTED")
        heading("Its abort audit log, stored write-once; its hash stands on chain")
        await self.print_lockstep("audit", plan_id)

    async def take_back(self) -> None:
        """Delivered, and then found wrong: a person is called at once, and two operators have the tokens taken back."""
        heading("A delivery that its validator refuses: a person is called")
        before = await self.bonds_of_the_buyer()
        plan_id = await self.create("refused-evidence", "Delivered to the wrong buyer", "", scene.BUYER)
        watching = await self.start("watch", plan_id, shown=True)
        await self.lockstep("plan", "execute", plan_id)
        await self.sign_when_awaited(plan_id, "approve", "approver")
        await self.sign_when_awaited(plan_id, "release", "releaser")
        await self.sign_when_awaited(plan_id, "validate", "validator", "--reject")
        await self.state_reached(plan_id, "PARTIALLY_EXECUTED")
        require(await self.bonds_of_the_buyer() > before, "the bonds are with the buyer when the person is called")
        heading("What is at risk, and what may be done about it")
        await self.print_lockstep("in-doubt")
        called = next(each for each in await self.listed("escalations", "list") if each["plan_id"] == plan_id)
        await self.print_lockstep("escalations", "show", called["escalation_id"])
        for person in ("operator-one", "operator-two"):
            order = ("--verb", "reverse", "--detail", "delivered to the wrong buyer", "--key", self.key(person))
            await self.lockstep("escalations", "sign", called["escalation_id"], *order)
        await finished(watching, expected=1)
        await self.ended(plan_id, "REVERSED")
        require(await self.bonds_of_the_buyer() == before, "the bonds are back with the seller")

    async def bonds_of_the_buyer(self) -> int:
        """Bonds at the buyer's address, in minor units."""
        return await outside.token_balance(self.sandbox, scene.BOND.symbol, self.sandbox.chain.address("buyer"))

    async def create(self, name: str, reference: str, price: str, payer: scene.Holder) -> str:
        """A new plan's id; without a price it is a delivery free of payment."""
        chain = self.sandbox.chain
        document = scene.delivery_versus_payment(
            chain.address("seller"), chain.address("buyer"), reference=reference, quantity="100.00", price=price, payer=payer
        )
        if not price:
            del document["legs"][1]
        created = await self.lockstep("plan", "create", str(self.sandbox.plan_file(name, document)))
        return str(created["plan_id"])

    async def ended(self, plan_id: str, outcome: str) -> dict[str, Any]:
        """The closed plan, with its verified journal; noted for the last line."""
        plan = await self.lockstep("plan", "show", plan_id)
        journal = await self.lockstep("journal", "verify", plan_id)
        require(
            (plan["state"], plan.get("outcome")) == ("CLOSED", outcome), f"the plan ends CLOSED ({outcome}), not {plan['state']}"
        )
        require(bool(journal["valid"]), "the journal verifies")
        self.plans.append(
            {
                "plan_id": plan_id,
                "state": plan["state"],
                "decision": plan.get("decision"),
                "outcome": plan.get("outcome"),
                "evidence": {leg["leg_id"]: evidence(leg) for leg in plan["legs"]},
                "journal": {"valid": journal["valid"], "entries": journal["entries"]},
            }
        )
        return plan

    # -- what is shown -----------------------------------------------------------------------------------------------

    async def show_balances(self, title: str) -> None:
        """Tokens from the chain, money from the bank's book."""
        heading(title)
        chain = self.sandbox.chain
        for name in ("seller", "buyer"):
            units = await outside.token_balance(self.sandbox, scene.BOND.symbol, chain.address(name))
            print(f"  {name:7} {units / 10**scene.BOND.scale:>16,.2f} {scene.BOND.symbol}   {chain.address(name)}")
        for account in await self.accounts():
            print(f"  {account['owner_name']:20} {account['booked']:>16} {account['currency']} booked, {account['held']} held")

    async def accounts(self) -> list[dict[str, Any]]:
        """The customers' accounts at the bank."""
        told = await outside.bank(self.sandbox, "/accounts")
        customers = {holder.iban for holder in (scene.BUYER, scene.SELLER, scene.PAUPER)}
        accounts = told["accounts"] if isinstance(told, dict) else told
        return [account for account in accounts if account["account_id"] in customers]

    async def show_evidence(self, plan: dict[str, Any]) -> list[str]:
        """Where everything can be looked up; the services in the plan's trace."""
        heading("Evidence")
        for leg in plan["legs"]:
            print(f"  {leg['leg_id']} ({leg['kind']}): {leg['phase']}")
            for name, value in evidence(leg).items():
                print(f"      {name:20} {value}")
        cash = next(leg for leg in plan["legs"] if leg["kind"] == "credit_transfer")
        entries = await outside.bank(self.sandbox, "/entries", uetr=evidence(cash)["uetr"])
        booked = entries["entries"] if isinstance(entries, dict) else entries
        print(f"  the bank's book holds {len(booked)} entries of that payment")
        heading("The journal")
        await self.print_lockstep("journal", "verify", str(plan["plan_id"]))
        services = await self.traced_services(str(plan["plan_id"]))
        heading("The trace")
        await self.print_lockstep("trace", str(plan["plan_id"]))
        return services

    async def traced_services(self, plan_id: str) -> list[str]:
        """The five services, once the last of them has exported its spans."""
        give_up = time.monotonic() + SPANS_SECONDS_MAX
        while True:
            traces = await outside.spans_of(self.sandbox, plan_id)
            services = max((sorted(set(trace["services"]) & set(SERVICES)) for trace in traces), key=len, default=[])
            if len(services) == len(SERVICES) or time.monotonic() > give_up:
                require(len(services) == len(SERVICES), f"one trace covers all five services, not {services}")
                return services
            await asyncio.sleep(LOOK_SECONDS)

    async def show_nothing_held(self) -> None:
        """No hold is left, and the bank's book balances."""
        heading("What is still held")
        escrowed = await outside.escrowed(self.sandbox, scene.BOND.symbol)
        held = {account["owner_name"]: account["held"] for account in await self.accounts()}
        audit = await outside.bank(self.sandbox, "/audit")
        print(f"  in escrow: {escrowed} {scene.BOND.symbol}; at the bank: {held}; the bank's own audit: {json.dumps(audit)[:200]}")
        require(escrowed == 0, "no token is left in escrow")
        require(all(float(amount) == 0 for amount in held.values()), "no money is left on hold")

    async def show_reconciled(self) -> None:
        """The bank's day ends and is stated: bank, coordinator and chain agree about it."""
        heading("The bank's day, reconciled three ways")
        day = (await outside.bank_command(self.sandbox, "/end-of-day", {}))["day"]
        give_up = time.monotonic() + STEP_SECONDS_MAX
        while len((found := await self.lockstep("reconcile", "--date", day))["accounts"]) < len(scene.HOLDERS):
            require(time.monotonic() < give_up, "the bank's statements are reconciled")
            await asyncio.sleep(LOOK_SECONDS)
        print(f"  {day}: {len(found['accounts'])} statements, {found['matched']} legs matched, {found['open']} breaks open")

    async def show_monitored(self) -> None:
        """A second reader of the journal, with nothing but keys, has found nothing to raise."""
        heading("The journal's monitor")
        raised = alarms(self.sandbox.supervisor.log_path(MONITOR))
        print(f"  monitor: {len(raised)} alarms {json.dumps(raised)[:400] if raised else ''}")
        require(not raised, "the monitor has raised no alarm")
        require(self.sandbox.supervisor.is_running(MONITOR), "the monitor still reads")

    async def show_bundle(self, plan_id: str) -> None:
        """All evidence of a plan in one file, once the log that holds it is witnessed and anchored, verified by who asks no service."""
        heading("Its bundle of evidence, verified offline")
        folder = self.sandbox.run.path / "state"
        bundle, trust = folder / "bundle.json", folder / "trust.json"
        await self.lockstep("journal", "trust", "-o", str(trust))
        give_up = time.monotonic() + STEP_SECONDS_MAX
        while absent := (await self.lockstep("journal", "export", plan_id, "-o", str(bundle)))["missing"]:
            require(time.monotonic() < give_up, f"nothing is missing in the bundle, not: {absent}")
            bundle.unlink()
            await asyncio.sleep(LOOK_SECONDS)
        verifying = (sys.executable, "-m", "lockstep_verify", str(bundle), "--trust", str(trust))
        await finished(await asyncio.create_subprocess_exec(*verifying, stdin=asyncio.subprocess.DEVNULL))

    # -- the lockstep command ----------------------------------------------------------------------------------------

    def key(self, person: str) -> str:
        """File of a person's key."""
        return str(self.sandbox.keys[person].private_file)

    async def sign_when_awaited(self, plan_id: str, gate: str, person: str, *options: str) -> None:
        """Sign as soon as the plan waits for the gate."""
        give_up = time.monotonic() + STEP_SECONDS_MAX
        while time.monotonic() < give_up:
            plan = await self.lockstep("plan", "show", plan_id)
            if any(waiting.get("gate", "").lower() == gate for waiting in plan["waiting"]):
                await self.lockstep("sign", plan_id, "--gate", gate, "--key", self.key(person), *options)
                return
            require(plan["state"] not in ("CLOSED", "ABORTED"), f"the plan waits for {gate}, and is not {plan['state']}")
            await asyncio.sleep(LOOK_SECONDS)
        raise DemoFailed(f"nobody asked for {gate} within {STEP_SECONDS_MAX:g} s")

    async def state_reached(self, plan_id: str, state: str) -> None:
        """Wait for a state."""
        give_up = time.monotonic() + STEP_SECONDS_MAX
        while (await self.lockstep("plan", "show", plan_id))["state"] != state:
            require(time.monotonic() < give_up, f"the plan reaches {state}")
            await asyncio.sleep(LOOK_SECONDS)

    async def lockstep(self, *words: str) -> dict[str, Any]:
        """Run the command, and read the last thing that it says."""
        return (await self.listed(*words))[-1]

    async def listed(self, *words: str) -> list[dict[str, Any]]:
        """Run the command, and read everything that it says."""
        process = await asyncio.create_subprocess_exec(
            *self.command(*words, "--json"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            stdin=asyncio.subprocess.DEVNULL,
        )
        try:
            output, errors = await asyncio.wait_for(process.communicate(), STEP_SECONDS_MAX)
        except (TimeoutError, asyncio.CancelledError):
            with suppress(ProcessLookupError):
                process.kill()
            raise
        require(process.returncode == 0, f"lockstep {' '.join(words[:3])}: {errors.decode().strip() or output.decode().strip()}")
        return [json.loads(line) for line in output.decode().splitlines()]

    async def print_lockstep(self, *words: str) -> None:
        """Run the command, and let it print."""
        await finished(await self.start(*words, shown=True))

    async def start(self, *words: str, shown: bool = False) -> asyncio.subprocess.Process:
        """Start the command beside everything else."""
        output = None if shown else asyncio.subprocess.DEVNULL
        return await asyncio.create_subprocess_exec(
            *self.command(*words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={"COLUMNS": COLUMNS, **os.environ},
        )

    def command(self, *words: str) -> tuple[str, ...]:
        """The command line."""
        program = Path(sys.executable).with_name("lockstep")
        return (str(program), *words, "--config", str(self.sandbox.client_configuration))


async def finished(process: asyncio.subprocess.Process, *, expected: int = 0) -> None:
    """Wait for a command's end."""
    try:
        code = await asyncio.wait_for(process.wait(), STEP_SECONDS_MAX)
    except (TimeoutError, asyncio.CancelledError):
        with suppress(ProcessLookupError):
            process.kill()
        raise
    require(code == expected, f"a command ended with {code} instead of {expected}")


def evidence(leg: dict[str, Any]) -> dict[str, Any]:
    """What shows a leg's outcome, as far as there is anything."""
    found = (leg.get("reversal") or leg.get("outcome", {})).get("evidence") or {}
    return {name: value for name, value in found.items() if value not in ("", None)}


def heading(text: str) -> None:
    """A title on the terminal."""
    print(f"\n== {text} ==", flush=True)


def require(holds: bool, what: str) -> None:
    """Fail unless something holds."""
    if not holds:
        raise DemoFailed(what)


async def demonstrate(base: Path) -> int:
    """The exit code."""
    began = time.monotonic()
    with cancel_on_signals():
        try:
            async with Sandbox(RuntimeDirectory.create(base)) as sandbox:
                print(
                    f"Five services, six databases, a chain and a bank are up after {time.monotonic() - began:.1f} s.", flush=True
                )
                result = await Demo(sandbox).run()
        except asyncio.CancelledError:
            print("stopped; everything that was started is gone", file=sys.stderr)
            return 130
        except DemoFailed as failure:
            print(f"the demo does not hold: {failure}", file=sys.stderr)
            return 1
    print(f"DEMO_RESULT {json.dumps(result)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(demonstrate(BASE)))
