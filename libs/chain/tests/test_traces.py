from __future__ import annotations

from collections.abc import Iterator

import pytest
from chain_world import World, running
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield exporter
    exporter.shutdown()


async def test_a_transaction_goes_on_in_its_trace(world: World, spans: InMemorySpanExporter) -> None:
    """Sending and confirming are spans of the trace that caused the transaction, also in another process, with hash, nonce, block and plan."""
    first = await world.machine()
    await world.enqueue(first, "one", traceparent=TRACEPARENT, plan_id="plan", leg_id="leg")
    await world.crash(first, "chain.assign.after_commit")
    async with running(await world.machine()):
        await world.until_told(1)
    row = await world.row("one")
    mine = {each.name: each for each in spans.get_finished_spans() if each.parent and each.parent.span_id == 0x00F067AA0BA902B7}
    # Whether it is seen in a block before that is final is the chain's doing.
    assert {"chain.send", "chain.confirm"} <= set(mine) <= {"chain.send", "chain.mined", "chain.confirm"}
    for each in mine.values():
        assert f"{each.context.trace_id:032x}" == TRACEPARENT.split("-")[1]
        assert each.attributes is not None
        assert each.attributes["blockchain.transaction.hash"] == "0x" + row["transaction_hash"].hex()
        assert (each.attributes["lockstep.plan_id"], each.attributes["lockstep.leg_id"]) == ("plan", "leg")
    sent, confirmed = mine["chain.send"].attributes, mine["chain.confirm"].attributes
    assert sent is not None
    assert confirmed is not None
    assert (sent["blockchain.transaction.nonce"], confirmed["blockchain.block.number"]) == (0, row["block_number"])
    calls = [
        each for each in spans.get_finished_spans() if each.parent and each.parent.span_id == mine["chain.send"].context.span_id
    ]
    asked = {each.name: each.attributes or {} for each in calls}
    assert asked["eth_sendRawTransaction"]["rpc.system.name"] == "jsonrpc"
    assert {each.attributes["lockstep.plan_id"] for each in calls if each.attributes} == {"plan"}
