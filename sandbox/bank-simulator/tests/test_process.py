"""The bank as a process of its own: started by its command, killed, started again, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from bank_world import ALICE, BOB, SCHEMAS, Gateway, World
from pydantic import ValidationError

from bank_simulator.main import Listening
from bank_simulator.settings import BankSeed, read_settings

START_SECONDS = 300.0


@asynccontextmanager
async def process(world: World) -> AsyncIterator[tuple[asyncio.subprocess.Process, Gateway]]:
    folder = world.settings_file.parent
    for name in ("rail.port", "control.port"):
        (folder / name).unlink(missing_ok=True)
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bank_simulator", "--config", str(world.settings_file), "--schemas", str(SCHEMAS),
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(START_SECONDS):
            while not (folder / "rail.port").exists() or not (folder / "control.port").exists():
                assert started.returncode is None
                await asyncio.sleep(0.02)
        ports = Listening(*(int((folder / name).read_text()) for name in ("rail.port", "control.port")))
        async with Gateway(ports, world.gateway_tls) as gateway:
            yield started, gateway
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.kill()
        await started.communicate()


async def test_killed_and_stopped(world: World) -> None:
    """A bank that is killed has forgotten nothing that it acknowledged; one that is told to stop stops in order, also with a reader waiting."""
    async with process(world) as (bank, gateway):
        order = await gateway.hold()
        assert await gateway.release(order) == 202
        bank.kill()
        await bank.wait()
    async with process(world) as (bank, gateway):
        assert [answer.kind for answer in await gateway.mailbox(after=0)] == ["pacs.002", "pacs.002", "camt.054"]
        assert await gateway.account(ALICE) == ("900.00", "0.00", "900.00")
        assert await gateway.account(BOB) == ("150.00", "0.00", "150.00")
        await gateway.conserved()
        waiting = asyncio.create_task(gateway.mailbox(after=3, wait=20))
        await asyncio.sleep(0.2)
        bank.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(bank.wait(), 60) == 0
        with contextlib.suppress(Exception):
            assert await waiting == []


@pytest.mark.parametrize("change", [{"unknown": 1}, {"rail": {"port": -1}}, {"control": {"host": "0.0.0.0", "token_file": "t"}}])
def test_settings(tmp_path: Path, change: dict[str, object]) -> None:
    """Unknown or impossible settings are refused, and so is a control interface beyond loopback."""
    tls = dict.fromkeys(("certificate_file", "key_file", "ca_file"), "x")
    content = {"database": {"url": "postgresql://x@127.0.0.1/x"}, "rail": tls, "control": {"token_file": "t"}, "seed_file": "s"}
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(content))
    assert read_settings(path).seed_file == tmp_path / "s"
    path.write_text(yaml.safe_dump(content | change))
    with pytest.raises(ValidationError):
        read_settings(path)


@pytest.mark.parametrize(
    "change",
    [
        {"bic": "NOBICATALL"},
        {"time_zone": "Mars/Olympus"},
        {"accounts": []},
        {"accounts": [{"account": "DE89370400440532013001", "owner": "x", "currency": "EUR"}]},
        {"accounts": [{"account": ALICE, "owner": "x", "currency": "XAU"}]},
        {"accounts": [{"account": ALICE, "owner": "x", "currency": "EUR", "opening_balance": "0.001"}]},
        {"accounts": [{"account": ALICE, "owner": "x", "currency": "EUR"}] * 2},
        {"terms": {"hold_seconds": 1}},
    ],
)
def test_seed(change: dict[str, object]) -> None:
    """A bank that cannot be is refused before it opens."""
    good: dict[str, object] = {
        "bic": "LSTPDEFFXXX",
        "name": "Bank",
        "accounts": [{"account": ALICE, "owner": "x", "currency": "EUR"}],
        "counterparties": [{"name": "g", "bic": "LSTPDEFFGTW", "identities": ["g"]}],
    }
    assert BankSeed.model_validate(good).bic == "LSTPDEFFXXX"
    with pytest.raises(Exception, match=r".+"):
        BankSeed.model_validate(good | change)
