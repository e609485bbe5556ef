"""The head of the chain and its highest final block; and whether the chain keeps to what was final. Holds no rules.

Final is what never goes away. A chain that has another block where one was final has reorganised below its own finality: what was reported of it may be
false, and nobody can tell by asking on. Then everything stops: nothing is read, sent or concluded until the chain has that block again, or a person has
looked and put another block in its place (`acknowledging`).

The highest final block is stored before it is used, so that no later process takes a chain for the same that is another.
"""

from __future__ import annotations

from typing import Final

import structlog

from lockstep_chain import final_store, metrics
from lockstep_chain.final_store import HeldBlock
from lockstep_chain.machine import ByTag, Finality, final_number
from lockstep_chain.ports import Block, Evm, EvmUnavailable, Tag
from lockstep_kit.db import Database

_log = structlog.get_logger()


async def latest(evm: Evm) -> Block:
    """The latest block.

    Raises:
        EvmUnavailable: it cannot be read.
    """
    head = await evm.block(Tag.LATEST)
    if head is None:
        raise EvmUnavailable("the chain has no latest block")
    metrics.head_seen(head)
    return head


async def final_below(evm: Evm, finality: Finality, head: Block) -> Block | None:
    """The highest final block, as seen from a head; None when nothing is final yet. What was final before is not asked.

    Raises:
        EvmUnavailable: it cannot be read.
    """
    tagged = await evm.block(finality.tag) if isinstance(finality, ByTag) else None
    number = final_number(finality, head.number, tagged.number if tagged is not None else None)
    if number is None:
        return None
    if tagged is not None and tagged.number == number:
        return tagged
    # Of several endpoints' heads one is told of, and whether that is canonical is asked; of a single one the head is its own word.
    return head if number == head.number and evm.reach[0] == 1 else await evm.block(number)


class FinalBlocks:
    """The chain's head and what is final below it, as everything of one service sees it."""

    def __init__(self, db: Database, evm: Evm, finality: Finality) -> None:
        self._db: Final = db
        self._evm: Final = evm
        self._finality: Final = finality
        #: None: what is stored is read first.
        self._before: HeldBlock | None = None
        #: Whether the chain has another block where one was final.
        self.contradicted = False

    async def head(self) -> Block:
        """The latest block.

        Raises:
            EvmUnavailable: it cannot be read.
        """
        return await latest(self._evm)

    async def below(self, head: Block) -> Block | None:
        """The highest final block, as seen from a head; None when nothing is final yet.

        Raises:
            EvmUnavailable: it cannot be read, or the chain does not have the block that was final before.
        """
        final = await final_below(self._evm, self._finality, head)
        if final is not None:
            metrics.final_seen(final.number)
        if final is not None and (held := HeldBlock(final.number, final.hash)) != self._before:
            await self._hold(held, head)
        return final

    async def _hold(self, final: HeldBlock, head: Block) -> None:
        """Hold the block that was final before against the chain, and keep the higher one."""
        before = self._before
        if before is None:
            async with self._db.connection() as connection:
                before = await final_store.held(connection, self._evm.chain_id)
        if before is not None:
            try:
                await self._compare(before, final, head)
            except EvmUnavailable:
                # A person may put another block in its place.
                self._before = None
                raise
            if self.contradicted:
                _log.warning("finality_holds_again", block_number=before.number)
                self.contradicted = False
                metrics.CONTRADICTED.set(0)
        if before is None or final.number > before.number:
            async with self._db.connection() as connection:
                await final_store.hold(connection, self._evm.chain_id, final)
            before = final
        # Others may have looked meanwhile.
        if self._before is None or before.number > self._before.number:
            self._before = before

    async def _compare(self, before: HeldBlock, final: HeldBlock, head: Block) -> None:
        if before.number > head.number:
            raise EvmUnavailable(f"the head {head.number} is below block {before.number}, which was final")
        found = final.hash
        if before.number != final.number:
            hashes = await self._evm.block_hashes([before.number, final.number])
            if before.number not in hashes:
                raise EvmUnavailable(f"block {before.number}, which was final, cannot be read")
            found = hashes[before.number]
            # Read before and after the other one: else a chain that changes in between would be remembered by a block that it does not have.
            if found == before.hash and hashes.get(final.number) != final.hash:
                raise EvmUnavailable(f"block {final.number} changed while it was read")
        if found == before.hash:
            return
        finding = f"block {before.number} was final as 0x{before.hash.hex()}, and the chain has 0x{found.hex()} there"
        if not self.contradicted:
            _log.error("reorganised_below_finality", finding=finding)
            self.contradicted = True
            metrics.CONTRADICTED.set(1)
        raise EvmUnavailable(finding)
