"""The operators' console in a whole installation, looked at through a browser: it shows what happens, as it happens, and can change nothing."""

from __future__ import annotations

import asyncio
import json
import secrets
import shlex
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest
import pytest_asyncio

from lockstep.coordinator.v1 import (
    operator_service_pb2,
    operator_service_pb2_grpc,
    settlement_service_pb2,
    settlement_service_pb2_grpc,
)
from lockstep.type.v1 import signature_pb2
from lockstep_client.operators import OperatorClient
from lockstep_kit.convert import gate_from_pb, resolution_from_pb
from lockstep_kit.ids import NONCE_BYTES, Digest
from lockstep_kit.resolutions import Resolution, ResolutionStatement, Verb, sign_resolution
from lockstep_kit.rpc import channel
from lockstep_kit.statements import Verdict
from lockstep_sandbox.consoles import CONSOLE, open_console
from lockstep_sandbox.stack import CLIENT, Sandbox
from lockstep_testkit.browser import NoBrowser, Page, opened_page
from lockstep_testkit.command_line import lockstep
from lockstep_testkit.crew import Crew, draw_address

SECONDS_MAX = 240.0
LOOK_SECONDS = 0.05
HOSTILE = "<img src=x onerror='window.hit=1'><script>window.hit=1</script>"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def address(sandbox: Sandbox) -> str:
    """Where the console's page is opened, with its token."""
    return await open_console(sandbox)


@pytest_asyncio.fixture(loop_scope="session")
async def page(address: str) -> AsyncIterator[Page]:
    """A browser. After each test: it complained of nothing, and asked nobody but the console."""
    try:
        async with opened_page() as browser:
            await browser.size(1280, 900)
            yield browser
            assert browser.complaints == []
            assert {urlsplit(each).netloc for each in browser.requests if not each.startswith("data:")} <= {
                urlsplit(address).netloc
            }
    except NoBrowser as reason:
        pytest.skip(str(reason))


def line(plan_id: str) -> str:
    """Selects a plan on the board."""
    return f'li[data-plan="{plan_id}"]'


def seen(selector: str) -> str:
    return f"document.querySelector({json.dumps(selector)}) !== null"


async def field(page: Page, name: str) -> str:
    """A value that is shown for copying, byte for byte."""
    return await page.text(f'#bytes code[data-field="{name}"]')


async def test_the_board_moves_as_a_plan_settles(crew: Crew, page: Page, address: str) -> None:
    """A plan appears on the board of a page that is open, and moves through its states to its end without a reload."""
    await page.goto(address)
    await page.until("document.querySelectorAll('.counts button').length === 12", SECONDS_MAX)
    assert "token=" not in await page.value("location.href")
    await page.value("window.reloaded = false")
    plan = await crew.awaiting((await crew.started(crew.payments())).header.plan_id, "release")
    plan_id = plan.header.plan_id
    await page.until(f"{seen(f'{line(plan_id)} .badge[data-kind=prepared]')}", SECONDS_MAX)
    assert "release signature" in await page.text(line(plan_id))
    await crew.driven(plan_id)
    await page.until(seen(f"{line(plan_id)} .badge[data-kind=committed]"), SECONDS_MAX)
    assert await page.value("window.reloaded") is False
    # Filtering: by the state that it has, by one that it has not, and by its id.
    await page.click('.counts button[data-state="DRAFT"]')
    await page.until(f"!{seen(line(plan_id))}")
    await page.click('.counts button[data-state="DRAFT"]')
    await page.write("#text", plan_id)
    assert await page.until("document.querySelectorAll('.plans > li').length === 1")
    await page.write("#text", "")


async def test_the_bytes_are_those_that_are_signed(sandbox: Sandbox, crew: Crew, page: Page, address: str) -> None:
    """The bytes that the page shows are, byte for byte, what the shown command signs and the coordinator then keeps; legs and journal are shown."""
    plan_id = (await crew.awaiting((await crew.started(crew.payments())).header.plan_id, "release")).header.plan_id
    await page.goto(f"{address}/plan/{plan_id}")
    await page.click('[data-opens="RELEASE APPROVE"]')
    shown, command = await field(page, "hex"), await field(page, "command")
    words = shlex.split(command)
    words[words.index("--key") + 1] = str(sandbox.keys["releaser"].private_file)
    code, _, errors = await lockstep(*words[1:], sandbox=sandbox, seconds_max=SECONDS_MAX)
    assert code == 0, errors
    closed = await crew.driven(plan_id)
    (release,) = [gate_from_pb(each.signature) for each in closed.gates if each.signature.gate == signature_pb2.GATE_RELEASE]
    assert release.statement.signed_bytes().hex() == shown
    await page.until(seen("#head .badge[data-kind=closed]"), SECONDS_MAX)
    await page.until("document.querySelector('[data-verdict]')?.dataset.verdict === 'HOLDS'", SECONDS_MAX)
    # The chain holds before its seal is there too.
    await page.until("document.querySelector('[data-verdict]').textContent.includes('the seal ends it')", SECONDS_MAX)
    for leg in closed.legs:
        assert "COMMITTED" in await page.text(f'[data-leg="{leg.leg.leg_id}"] h3')
    # What was shown to be compared did not change while the plan went on.
    assert await field(page, "hex") == shown
    await page.until(f"document.querySelectorAll('#journal tbody tr').length === {closed.journal_sequence}", SECONDS_MAX)


async def test_names_in_plans_stay_text(crew: Crew, page: Page, address: str) -> None:
    """Markup in a plan's reference or a party's name is shown as it was written, and nothing of it runs."""
    document = crew.payments()
    document["reference"] = HOSTILE
    document["parties"][1]["name"] = HOSTILE
    plan = await crew.awaiting((await crew.started(document)).header.plan_id, "release")
    plan_id = plan.header.plan_id
    await page.goto(address)
    assert HOSTILE in await page.text(f"{line(plan_id)} .title")
    assert HOSTILE in await page.text(f"{line(plan_id)} .sub")
    await page.click(f"{line(plan_id)} a")
    await page.until(f"document.querySelector('h1')?.textContent === {json.dumps(HOSTILE)}", SECONDS_MAX)
    await page.until(seen("[data-verdict]"), SECONDS_MAX)
    assert await page.value("window.hit") is None
    assert await page.value("document.querySelectorAll('main img, main script').length") == 0
    await crew.client.cancel_plan(plan_id, crew.signature(plan, "cancel", person="maker"))
    await crew.driven(plan_id)
    await page.until(seen("#head .badge[data-kind=aborted]"), SECONDS_MAX)


async def test_an_escalation_is_resolved_by_what_the_page_shows(sandbox: Sandbox, crew: Crew, page: Page, address: str) -> None:
    """An escalation shows what is at risk and what may be done; two operators run the commands that it shows, and the coordinator keeps the shown bytes."""
    document = crew.payments(payee=draw_address())
    # Only what can be taken back: money that is booked stays booked.
    del document["legs"][1]
    plan_id = (await crew.started(document)).header.plan_id
    async with crew.paused_validator(), OperatorClient(sandbox.address("coordinator"), sandbox.tls(CLIENT)) as desk:
        waiting = await crew.awaiting(plan_id, "release")
        await crew.client.sign_gate(plan_id, crew.signature(waiting, "release"))
        waiting = await crew.awaiting(plan_id, "validate")
        await crew.client.sign_gate(plan_id, crew.signature(waiting, "validate", person="validator", verdict=Verdict.REJECT))
        (raised,) = [each async for each in desk.list_escalations(plan_id=plan_id)]
        escalation_id = raised.escalation.escalation_id
        await page.goto(f"{address}/escalations")
        await page.click(f'a[href="#/escalation/{escalation_id}"]')
        await page.until(seen("input[name=option]"), SECONDS_MAX)
        assert "bonds" in await page.text("main")
        await page.value(
            "[...document.querySelectorAll('label.option')].find((each) => each.textContent.startsWith('REVERSE')).click()"
        )
        shown: list[str] = []
        for person in ("operator-one", "operator-two"):
            await page.write("#detail", 'the validator refused: it\'s "wrong"')
            await page.click("form button[type=submit]")
            octets = await page.until(f"""(() => {{
                const found = document.querySelector('#bytes code[data-field=hex]')?.textContent;
                return found && !{json.dumps(shown)}.includes(found) ? found : null;
            }})()""", SECONDS_MAX)  # fmt: skip
            shown.append(octets)
            words = shlex.split(await field(page, "command"))
            words[words.index("--key") + 1] = str(sandbox.keys[person].private_file)
            code, _, errors = await lockstep(*words[1:], sandbox=sandbox, seconds_max=SECONDS_MAX)
            assert code == 0, errors
        file = (await desk.get_escalation(escalation_id)).escalation
        kept = [resolution_from_pb(each.signature) for record in file.resolutions for each in record.signatures]
        assert [each.statement.signed_bytes().hex() for each in kept] == shown
        await crew.driven(plan_id, until=("ABORTED", "CLOSED"))
        await forgotten(crew, desk, file)
    await crew.driven(plan_id)
    await page.until("document.querySelector('.badges')?.textContent.startsWith('CLOSED')", SECONDS_MAX)


async def forgotten(crew: Crew, desk: OperatorClient, file: operator_service_pb2.EscalationFile) -> None:
    """Two operators close the escalation."""
    resolution = Resolution(Digest(file.plan_digest), file.escalation.escalation_id, Verb.FORGET, detail="the tokens are back")
    for person in ("operator-one", "operator-two"):
        until = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=10)
        statement = ResolutionStatement(resolution, secrets.token_bytes(NONCE_BYTES), until)
        await desk.sign_resolution(sign_resolution(statement, crew.key(person)))


async def test_every_view_fits_and_is_reached_by_keyboard(crew: Crew, page: Page, address: str) -> None:
    """At 1280 and 400 pixels, light and dark, nothing is wider than the page, and text stands out from its ground; a plan is opened by keys alone."""
    plan = await crew.awaiting((await crew.started(crew.payments())).header.plan_id, "release")
    plan_id = plan.header.plan_id
    await page.goto(address)
    await page.until(seen(line(plan_id)), SECONDS_MAX)
    for width, dark in ((1280, False), (400, True)):
        await page.size(width, 900)
        await page.dark(dark)
        for view, wanted in (
            ("", line(plan_id)),
            (f"plan/{plan_id}", "[data-verdict]"),
            ("escalations", "#escalations > *"),
            ("risk", "h1"),
        ):
            await page.value(f"location.hash = '#/{view}'")
            await page.until(seen(wanted), SECONDS_MAX)
            assert await page.value("document.documentElement.scrollWidth") <= width, (view, width)
            assert await page.value(CONTRAST) == [], (view, dark)
            unnamed = "[...document.querySelectorAll('input, select, textarea')].filter((each) => !each.labels.length).length"
            assert await page.value(unnamed) == 0
    await page.value("location.hash = '#/'")
    await page.until(seen(line(plan_id)), SECONDS_MAX)
    give_up = time.monotonic() + SECONDS_MAX
    while not await page.value(
        f"document.activeElement?.closest({json.dumps(line(plan_id))}) !== null && document.activeElement.tagName === 'A'"
    ):
        assert time.monotonic() < give_up, "no key reaches the plan"
        await page.key("Tab")
    await page.key("Enter")
    await page.until(f"location.hash === '#/plan/{plan_id}' && {seen('[data-verdict]')}", SECONDS_MAX)
    await crew.driven(plan_id)


#: Texts whose contrast with what they stand on is less than 4.5 to 1 (WCAG 2.2, 1.4.3).
CONTRAST = """(() => {
  const light = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).map((each) => each / 255)
      .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const found = getComputedStyle(each).backgroundColor;
      if (!/, 0\\)$|transparent/.test(found)) return found;
    }
    return 'rgb(255, 255, 255)';
  };
  document.getAnimations().forEach((each) => each.finish());
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest('.hidden, .skip, noscript, option')) continue;
    const [a, b] = [light(getComputedStyle(element).color), light(ground(element))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) found.push(walker.currentNode.data);
  }
  return found;
})()"""


async def test_it_says_when_it_is_not_live(sandbox: Sandbox, crew: Crew, page: Page, address: str) -> None:
    """While the coordinator is away, the page says that what it shows may be old; when it is back, the page goes on by itself."""
    await page.goto(address)
    await page.until("document.getElementById('status').dataset.live === 'yes'", SECONDS_MAX)
    await sandbox.supervisor.stop("coordinator")
    try:
        await page.until("!document.getElementById('stale').hidden", SECONDS_MAX)
        assert "may be old" in await page.text("#stale")
    finally:
        await sandbox.supervisor.restart("coordinator")
    await page.until(
        "document.getElementById('stale').hidden && document.getElementById('status').dataset.live === 'yes'", SECONDS_MAX
    )
    plan_id = (await crew.started(crew.payments())).header.plan_id
    await page.until(seen(line(plan_id)), SECONDS_MAX)
    await crew.driven(plan_id)


async def test_an_answer_that_never_comes_is_told(sandbox: Sandbox, page: Page, address: str) -> None:
    """A view that asks again and again does not wait for ever: while the console hangs it says that what it shows may be old, and then it goes on."""
    await page.goto(f"{address}/escalations")
    await page.until("document.getElementById('status').dataset.live === 'yes'", SECONDS_MAX)
    # Nobody waits for as long as a page does.
    await page.value("(() => { const real = AbortSignal.timeout.bind(AbortSignal); AbortSignal.timeout = () => real(500); })()")
    sandbox.supervisor.pause(CONSOLE)
    try:
        await page.until("!document.getElementById('stale').hidden", SECONDS_MAX)
        assert "may be old" in await page.text("#stale")
    finally:
        sandbox.supervisor.resume(CONSOLE)
    await page.until(
        "document.getElementById('stale').hidden && document.getElementById('status').dataset.live === 'yes'", SECONDS_MAX
    )


async def test_without_the_token_nothing_is_shown(page: Page, address: str) -> None:
    """A page without the token asks for it, and shows the board once it is typed."""
    token = address.partition("#token=")[2]
    await page.goto(address.partition("#")[0])
    await page.write("#token", token)
    # The browser notes each refusal of the network; here they are what is tested.
    give_up = time.monotonic() + SECONDS_MAX
    while not page.complaints:
        assert time.monotonic() < give_up, "the browser notes no refusal"
        await asyncio.sleep(LOOK_SECONDS)
    assert {each.rpartition("/api/")[2] for each in page.complaints} == {"events"}
    page.complaints.clear()
    await page.click("form button[type=submit]")
    await page.until("document.querySelectorAll('.counts button').length === 12", SECONDS_MAX)
    assert token not in await page.value("location.href + JSON.stringify({...localStorage, ...sessionStorage}) + document.cookie")


async def test_its_certificate_can_change_nothing(sandbox: Sandbox, address: str) -> None:
    """Every method of the coordinator that changes something is refused to the console's certificate, whatever is in the request."""
    changing: dict[Any, tuple[str, ...]] = {
        (settlement_service_pb2_grpc.SettlementServiceStub, settlement_service_pb2): (
            "CreatePlan",
            "ExecutePlan",
            "CancelPlan",
            "SignGate",
            "CreatePlans",
            "ExecutePlans",
            "SignGates",
        ),
        (operator_service_pb2_grpc.OperatorServiceStub, operator_service_pb2): ("SignResolution", "ReplayDeadLetter"),
    }
    async with channel(sandbox.address("coordinator"), sandbox.tls(f"client/{CONSOLE}")) as calls:
        for (stub, messages), methods in changing.items():
            for method in methods:
                with pytest.raises(grpc.aio.AioRpcError) as refusal:
                    await getattr(stub(calls), method)(getattr(messages, f"{method}Request")(), timeout=SECONDS_MAX)
                assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED, method


async def test_it_stops_while_it_is_watched(sandbox: Sandbox, page: Page, address: str) -> None:
    """Told to stop, the console ends at once though a browser follows it; started again, the page goes on by itself."""
    await page.goto(address)
    await page.until("document.getElementById('status').dataset.live === 'yes'", SECONDS_MAX)
    await sandbox.supervisor.stop(CONSOLE)
    await page.until("document.getElementById('status').dataset.live === 'no'", SECONDS_MAX)
    await sandbox.supervisor.restart(CONSOLE)
    await page.until("document.getElementById('status').dataset.live === 'yes'", SECONDS_MAX)
    # A connection that is gone is noted by the browser.
    assert all("Failed to load resource" in each for each in page.complaints)
    page.complaints.clear()
