"""Who mines on the sandbox's chain where a test says when, and at which price."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from lockstep_sandbox.stack import Sandbox

BLOCK_SECONDS: Final = 0.1
#: So dear that what was priced before is left lying; what is priced then is mined again.
DEAR_WEI: Final = 50 * 10**9
USUAL_WEI: Final = 10**9


class Miner:
    """Mines a block every tenth of a second, and can be told to stop or to be dear."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._node = sandbox.chain.node
        self.mines = True
        self.dear = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Mine inside."""
        await self._node.call("evm_setIntervalMining", 0)
        await self._node.call("evm_setAutomine", False)  # noqa: FBT003 - a parameter of the node
        # Blocks come faster than seconds, and their clock must not run ahead of everybody's.
        await self._node.call("anvil_setBlockTimestampInterval", 0)
        task = asyncio.create_task(self._mine(), name="miner")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def waiting_for(self, contract: str) -> int:
        """Transactions that lie in the pool and call a contract."""
        pool = await self._node.call("txpool_content")
        lying = [each for by_nonce in pool["pending"].values() for each in by_nonce.values()]
        return sum((each["to"] or "").lower() == contract.lower() for each in lying)

    async def waiting(self) -> int:
        """Transactions that lie in the pool."""
        status = await self._node.call("txpool_status")
        return int(status["pending"], 16)

    async def _mine(self) -> None:
        while True:
            if self.mines:
                with contextlib.suppress(OSError):
                    await self._node.call("anvil_setNextBlockBaseFeePerGas", hex(DEAR_WEI if self.dear else USUAL_WEI))
                    await self._node.call("evm_mine")
            await asyncio.sleep(BLOCK_SECONDS)
