"""`lockstep doctor` over the running installation: all is well; then something is not, and it is named."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from lockstep_sandbox.stack import SERVICES, Sandbox
from lockstep_testkit.command_line import lockstep

SECONDS_MAX = 120.0
#: What plans that other tests left behind have to say is theirs.
ABOUT_PLANS = ("operators", "outbox")


async def examined(*arguments: str, until: Callable[[int, dict[str, Any]], bool]) -> dict[str, Any]:
    """The document of a doctor whose exit code and document are as they must be; asked again while they are not, as on a machine that is busy."""
    give_up = time.monotonic() + SECONDS_MAX
    while True:
        code, printed, error = await lockstep("doctor", "--json", *arguments)
        assert printed, error
        document: dict[str, Any] = json.loads(printed)
        if until(code, document):
            return document
        assert time.monotonic() < give_up, [each for each in document["checks"] if each["verdict"] != "ok"]
        await asyncio.sleep(1)


def failed(document: dict[str, Any]) -> set[str]:
    """Services of which a check failed."""
    return {each["service"] for each in document["checks"] if each["verdict"] == "failed"}


async def test_all_is_well(sandbox: Sandbox) -> None:
    """Of an installation that runs every check of every service is there and well."""

    def well(code: int, document: dict[str, Any]) -> bool:
        return code == 0 and all(each["verdict"] == "ok" for each in document["checks"] if each["check"] not in ABOUT_PLANS)

    document = await examined("--config", str(sandbox.client_configuration), until=well)
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
        named = {"bank-gateway"}
        configured = ("--config", str(sandbox.client_configuration))
        document = await examined(*configured, until=lambda code, seen: code == 1 and failed(seen) == named)
        _, printed, error = await lockstep("doctor", sandbox=sandbox)
    finally:
        await sandbox.supervisor.restart("bank-gateway")
    assert all("bank-gateway" in each["next"] for each in document["checks"] if each["verdict"] == "failed")
    assert "next: start bank-gateway" in printed
    assert error.startswith("INSTALLATION_UNWELL")


async def test_who_may_not_ask_is_told_nothing(sandbox: Sandbox) -> None:
    """A party's client is refused by every service, and told what to do about it."""
    party = sandbox.client_configuration.parent / "config" / "client-seller.yaml"

    def refused(code: int, document: dict[str, Any]) -> bool:
        return code == 1 and all("CALLER_NOT_ALLOWED" in each["text"] for each in _connections(document).values())

    connections = _connections(await examined("--config", str(party), until=refused))
    assert set(connections) == set(SERVICES)
    for each in connections.values():
        assert each["verdict"] == "failed"
        assert "certificate" in each["next"]


def _connections(document: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {each["service"]: each for each in document["checks"] if each["check"] == "connection"}
