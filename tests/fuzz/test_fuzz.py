"""A few thousand calls of `make test-fuzz`, from two seeds that are always the same; the command itself draws one."""

from __future__ import annotations

import pytest

from fuzz.running import Fuzzing

pytestmark = pytest.mark.integration

CALLS = 1_500
BATCH = 500
#: Of grpc.health.v1, which anybody with a certificate may ask, nobody may list.
CLOSED = "/grpc.health.v1.Health/List"


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_call_does_harm(ready: Fuzzing, seed: int) -> None:
    """No forged call by whoever crashes anything, ends as INTERNAL, has an effect, or tells a caller who may not ask whether something exists."""
    async with ready.campaign(seed, BATCH) as campaign:
        await campaign.run(CALLS)
    assert campaign.findings == [], "\n".join(campaign.findings)
    assert campaign.calls == CALLS
    wanted = {each.path for each in ready.methods if each.path != CLOSED}
    assert {each.split()[1] for each in campaign.reached} == wanted, "every method was reached past the guard by somebody"


async def test_everything_still_settles(ready: Fuzzing) -> None:
    """After all those calls a plan settles as if nothing had been."""
    await ready.still_settles()


async def test_a_seed_gives_the_same_calls(ready: Fuzzing) -> None:
    """Number by number: whoever calls what, with which bytes."""
    runs = []
    for _ in range(2):
        async with ready.campaign(7) as campaign:
            planned = [campaign.planned(number, strict=False) for number in range(200)]
        runs.append([(each.caller.label, each.method, each.request, each.manner) for each in planned])
    assert runs[0] == runs[1]
    assert len({request.octets for _, _, request, _ in runs[0]}) > 100
