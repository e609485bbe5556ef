"""A gateway whose key lies in a hardware security module (SoftHSM), as its own process over a real chain."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from gateway_world import GatewayWorld

from lockstep_contracts.escrow import LegStatus
from lockstep_contracts.roles import encode_grant_operator
from lockstep_sandbox.processes import ProgramFailed
from lockstep_testkit.chains import SCALE, SettlementChain
from lockstep_testkit.participant_conformance import DONE
from lockstep_testkit.participants import ParticipantProcess
from lockstep_testkit.softhsm import SoftHsm

TOKEN = "settlement"


@pytest.fixture
def hsm(softhsm: SoftHsm) -> SoftHsm:
    """A token with a key."""
    softhsm.add_token(TOKEN)
    softhsm.add_key(TOKEN, "gateway", b"\x01")
    return softhsm


def signer_of(hsm: SoftHsm) -> dict[str, Any]:
    return {
        "kind": "pkcs11",
        "module_file": str(hsm.module),
        "token_label": TOKEN,
        "pin_file": str(hsm.pin_file(TOKEN)),
        "key_label": "gateway",
        "key_id": "01",
        "address": hsm.address(TOKEN, "gateway"),
    }


async def test_settles_with_a_key_that_never_leaves_its_token(
    participant_for: Callable[..., Awaitable[ParticipantProcess]], settlement_chain: SettlementChain, hsm: SoftHsm
) -> None:
    """The escrow holds and pays out on transactions that the token signed; another PIN refuses to start and is not shown."""
    address, chain = hsm.address(TOKEN, "gateway"), settlement_chain.chain
    await chain.node.call("anvil_setBalance", address, hex(10**21))
    await chain.transact(settlement_chain.escrow, encode_grant_operator(address))
    settings, signer = settlement_chain.settings("dlt-gateway"), signer_of(hsm)
    service = await participant_for(
        "dlt-gateway",
        chain=settings | {"signers": [signer]},
        escrow=settlement_chain.escrow,
        tokens={settlement_chain.asset: SCALE},
        judge_seconds=0.3,
    )
    world = await GatewayWorld.around(service, settlement_chain)
    plan = world.plan(700)
    vote = await world.harness.prepare(plan)
    assert await world.status(plan) is LegStatus.PREPARED
    assert (await world.harness.commit(plan, vote.report)).verdict == DONE
    assert await world.status(plan) is LegStatus.COMMITTED
    assert int(await chain.node.call("eth_getTransactionCount", address, "latest"), 16) == 2
    put(signer["pin_file"], "13131313")
    with pytest.raises(ProgramFailed):
        await service.restart()
    log = service.supervisor.log_tail("dlt-gateway")
    assert "chain.signers[0].pin_file must hold the token's user PIN" in log
    assert not any(secret in log for secret in ("13131313", *hsm.pins.values()))
    put(signer["pin_file"], hsm.pins[TOKEN])
    await service.restart()


def put(path: str, secret: str) -> None:
    Path(path).write_text(secret)
