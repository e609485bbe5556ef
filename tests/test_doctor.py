"""`lockstep doctor` over the running installation: all is well; then something is not, and it is named."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from lockstep_sandbox.stack import SERVICES, Sandbox
from lockstep_testkit.command_line import lockstep

SECONDS_MAX = 120.0
#: What plans that other tests left behind have to say is theirs.
ABOUT_PLANS = ("operators", "outbox")


async def examined(sandbox: Sandbox) -> tuple[int, dict[str, Any]]:
    """Exit code and document."""
    code, printed, error = await lockstep("doctor", "--json", sandbox=sandbox)
    assert printed, error
    return code, json.loads(printed)


async def test_all_is_well(sandbox: Sandbox) -> None:
    """Of an installation that runs every check of every service is there and well."""
    until = time.monotonic() + SECONDS_MAX
    while True:
        code, document = await examined(sandbox)
        unwell = [each for each in document["checks"] if each["verdict"] != "ok" and each["check"] not in ABOUT_PLANS]
        if not unwell and code == 0:
            break
        assert time.monotonic() < until, unwell
        await asyncio.sleep(1)
    found = {(each["service"], each["check"]) for each in document["checks"]}
    assert {(name, check) for name in SERVICES for check in ("connection", "certificate", "clock", "database")} <= found
    assert {(name, check) for name in ("dlt-gateway", "notary") for check in ("chain", "account")} <= found
    assert {
        ("bank-gateway", "bank"), ("event-journal", "log"), ("notary", "witness"), ("coordinator", "generation"),
        ("all", "clock"), ("all", "registry"), ("client", "certificate"),
    } <= found  # fmt: skip
    assert document["failed"] == 0


async def test_a_participant_that_is_down_is_named(sandbox: Sandbox) -> None:
    """While a participant is down the doctor ends with 1, names it and nobody else, and says what to do."""
    await sandbox.supervisor.kill9("bank-gateway")
    try:
        code, document = await examined(sandbox)
        failed = [each for each in document["checks"] if each["verdict"] == "failed"]
        _, printed, error = await lockstep("doctor", sandbox=sandbox)
    finally:
        await sandbox.supervisor.restart("bank-gateway")
    assert code == 1
    assert {each["service"] for each in failed} == {"bank-gateway"}
    assert all("bank-gateway" in each["next"] for each in failed)
    assert "next: start bank-gateway" in printed
    assert error.startswith("INSTALLATION_UNWELL")


async def test_who_may_not_ask_is_told_nothing(sandbox: Sandbox) -> None:
    """A party's client is refused by every service, and told what to do about it."""
    party = sandbox.client_configuration.parent / "config" / "client-seller.yaml"
    code, printed, _ = await lockstep("doctor", "--json", "--config", str(party))
    document = json.loads(printed)
    assert code == 1
    connections = {each["service"]: each for each in document["checks"] if each["check"] == "connection"}
    assert set(connections) == set(SERVICES)
    for each in connections.values():
        assert each["verdict"] == "failed"
        assert "CALLER_NOT_ALLOWED" in each["text"]
        assert "certificate" in each["next"]
