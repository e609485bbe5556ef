"""A payer who never sent a transaction: its allowance travels with the plan, and is used in the transaction that takes the tokens."""

from __future__ import annotations

import grpc
import pytest

from lockstep.participant.v1 import leg_pb2
from lockstep_client.chain_reader import ChainReader
from lockstep_client.convert import plan_from_pb, state_name
from lockstep_client.making import consent, create, permits
from lockstep_contracts import token
from lockstep_kit.errors import LockstepError
from lockstep_kit.permits import Permit
from lockstep_sandbox import scene
from lockstep_sandbox.stack import Sandbox
from lockstep_testkit.crew import Crew, draw_address


async def test_a_plan_settles_by_permit(sandbox: Sandbox, crew: Crew) -> None:
    """One signature over the terms, one over the allowance: the payee is paid, and nothing of the allowance is left."""
    chain, bond = sandbox.chain, sandbox.chain.tokens[scene.BOND.symbol]
    await chain.fund("permitting")
    payer, payee = chain.accounts["permitting"], draw_address()
    await chain.transact(bond, token.encode_transfer(payer.address, 1_000), by="seller")
    plan = await create(crew.client, crew.draft(crew.payments(payer="permitting", payee=payee)), crew.key("maker"))
    view, accounts = plan_from_pb(plan), {str(payer.address): payer}
    async with ChainReader(chain.node.url) as reader:
        allowed = await permits(view, accounts, reader)
    (leg_id,) = allowed
    short = {leg_id: Permit(999, allowed[leg_id].deadline, allowed[leg_id].signature)}
    with pytest.raises(LockstepError) as refused:
        await crew.client.execute_plan(view.header.plan_id, consent(view, accounts), short)
    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "payer_signatures[0].permit.value" in str(refused.value)

    await crew.client.execute_plan(view.header.plan_id, consent(view, accounts), allowed)
    ended = await crew.driven(view.header.plan_id)
    assert (state_name(ended.state), ended.outcome) == ("CLOSED", leg_pb2.PLAN_OUTCOME_COMMITTED)
    await crew.assert_settled_once(view.header.plan_id, payee)
    left = await chain.node.read(bond, token.encode_allowance(payer.address, chain.contracts["SettlementEscrow"]))
    used = await chain.node.read(bond, token.encode_nonces(payer.address))
    assert (token.decode_count(left), token.decode_count(used)) == (0, 1)
    # Not one transaction of its own.
    assert await chain.node.call("eth_getTransactionCount", payer.address, "latest") == "0x0"
