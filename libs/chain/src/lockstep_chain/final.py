"""The head of the chain and its highest final block; and whether the chain keeps to what was final. Holds no rules.

Final is what never goes away. A chain that has another block where one was final has reorganised below its own finality: what was reported of it may be
false, and nobody can tell by asking on. Then everything stops: nothing is read, sent or concluded until the chain has that block again, or a person has
looked and starts the service anew.

What is lost at the edge: what was final is remembered in memory, and a service that starts believes the chain that it finds.
"""

from __future__ import annotations

from typing import Final

import structlog

from lockstep_chain.machine import ByTag, Finality, final_number
from lockstep_chain.ports import Block, Evm, EvmUnavailable, Tag

_log = structlog.get_logger()


class FinalBlocks:
    """The chain's head and what is final below it, as everything of one service sees it."""

    def __init__(self, evm: Evm, finality: Finality) -> None:
        self._evm: Final = evm
        self._finality: Final = finality
        self._before: Block | None = None
        #: Whether the chain has another block where one was final.
        self.contradicted = False

    async def head(self) -> Block:
        """The latest block.

        Raises:
            EvmUnavailable: it cannot be read.
        """
        head = await self._evm.block(Tag.LATEST)
        if head is None:
            raise EvmUnavailable("the chain has no latest block")
        return head

    async def below(self, head: Block) -> Block | None:
        """The highest final block, as seen from a head; None when nothing is final yet.

        Raises:
            EvmUnavailable: it cannot be read, or the chain does not have the block that was final before.
        """
        tagged = await self._evm.block(self._finality.tag) if isinstance(self._finality, ByTag) else None
        number = final_number(self._finality, head.number, tagged.number if tagged is not None else None)
        if number is None:
            return None
        final = tagged if tagged is not None and tagged.number == number else await self._evm.block(number)
        if final is not None and final != self._before:
            await self._hold(final, head)
        return final

    async def _hold(self, final: Block, head: Block) -> None:
        """Hold the block that was final before against the chain."""
        before = self._before
        if before is not None:
            await self._compare(before, final, head)
            if self.contradicted:
                _log.warning("finality_holds_again", block_number=before.number)
                self.contradicted = False
        # Others may have looked meanwhile.
        if self._before is None or final.number > self._before.number:
            self._before = final

    async def _compare(self, before: Block, final: Block, head: Block) -> None:
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
        raise EvmUnavailable(finding)
