"""`python -m lockstep_testkit.pictures FOLDER`: pictures of the operators' console over a sandbox of its own, for docs/console.md.

A plan that is settled, one that waits for its release, one that is cancelled, and one for which operators are called; the board, the second one's page with the
bytes to sign, and the escalation, each at two widths, one of them in dark colours.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Final

from lockstep_client.operators import OperatorClient
from lockstep_kit.statements import Verdict
from lockstep_sandbox.consoles import open_console
from lockstep_sandbox.processes import cancel_on_signals
from lockstep_sandbox.runtime import RuntimeDirectory
from lockstep_sandbox.stack import CLIENT, Sandbox
from lockstep_testkit.browser import NoBrowser, Page, opened_page
from lockstep_testkit.crew import Crew, draw_address

#: Width and height in CSS pixels, and whether dark colours are preferred.
SIZES: Final = ((1280, 900, False), (400, 860, True))


async def played(crew: Crew, desk: OperatorClient) -> tuple[str, str]:
    """The plans; the one that waits for its release, and the escalation."""
    document = crew.payments(price="98750.00")
    await crew.settled(document | {"reference": "Bonds 2031, first tranche"})
    cancelled = await crew.awaiting(
        (await crew.started(document | {"reference": "Bonds 2031, withdrawn"})).header.plan_id, "release"
    )
    await crew.client.cancel_plan(cancelled.header.plan_id, crew.signature(cancelled, "cancel", person="maker"))
    await crew.driven(cancelled.header.plan_id)
    tokens = crew.payments(payee=draw_address()) | {"reference": "Bonds free of payment"}
    del tokens["legs"][1]
    refused = (await crew.started(tokens)).header.plan_id
    async with crew.paused_validator():
        waiting = await crew.awaiting(refused, "release")
        await crew.client.sign_gate(refused, crew.signature(waiting, "release"))
        waiting = await crew.awaiting(refused, "validate")
        await crew.client.sign_gate(refused, crew.signature(waiting, "validate", person="validator", verdict=Verdict.REJECT))
    (file,) = [each async for each in desk.list_escalations(plan_id=refused)]
    second = await crew.awaiting(
        (await crew.started(document | {"reference": "Bonds 2031, second tranche"})).header.plan_id, "release"
    )
    return second.header.plan_id, file.escalation.escalation_id


async def taken(page: Page, folder: Path, address: str, plan_id: str, escalation_id: str) -> None:
    """The pictures, one file each."""
    await page.goto(address)
    # The page takes the token out of its address before it shows anything.
    await page.until("document.getElementById('status').dataset.live === 'yes'")
    for width, height, dark in SIZES:
        await page.size(width, height)
        await page.dark(dark)
        await _shown(page, "#/", f'li[data-plan="{plan_id}"]')
        await _kept(page, folder / f"board-{width}.png")
        await _shown(page, f"#/plan/{plan_id}", "[data-verdict]")
        await page.click('[data-opens="RELEASE APPROVE"]')
        await page.until("document.querySelector('#bytes code') !== null")
        await _kept(page, folder / f"plan-{width}.png")
        await _shown(page, f"#/escalation/{escalation_id}", "input[name=option]")
        await _kept(page, folder / f"escalation-{width}.png")


async def _shown(page: Page, view: str, wanted: str) -> None:
    await page.value(f"location.hash = {json.dumps(view)}")
    await page.until(
        f"document.querySelector({json.dumps(wanted)}) !== null && document.getElementById('status').dataset.live === 'yes'"
    )


async def _kept(page: Page, path: Path) -> None:
    await page.value("scrollTo(0, 0); document.activeElement?.blur(); document.getAnimations().forEach((each) => each.finish())")
    await asyncio.to_thread(path.write_bytes, await page.picture())


async def main(folder: Path) -> int:
    """Take them; the exit code."""
    with cancel_on_signals(), tempfile.TemporaryDirectory() as base:
        async with Sandbox(RuntimeDirectory.create(Path(base))) as sandbox, Crew(sandbox) as crew:
            async with OperatorClient(sandbox.address("coordinator"), sandbox.tls(CLIENT)) as desk:
                plan_id, escalation_id = await played(crew, desk)
            try:
                async with opened_page() as page:
                    await taken(page, folder, await open_console(sandbox), plan_id, escalation_id)
            except NoBrowser as reason:
                sys.stderr.write(f"no pictures were taken: {reason}\n")
                return 1
    return 0


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    sys.exit(asyncio.run(main(Path(sys.argv[1]))))
