"""`python -m SERVICE.finality --config FILE`: the block that is held to be final, and the one that the chain has in its place.

A chain that took back what was final has stopped the service, and no restart makes it go on. A person looks at what was reported of the blocks that are gone,
and then names the chain's own block: `--acknowledge HASH --finding TEXT`. From then on that one is held to be final.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from typing import TypeAlias

from lockstep_chain import final_store
from lockstep_chain.final import final_below, latest
from lockstep_chain.final_store import HeldBlock
from lockstep_chain.machine import Finality
from lockstep_chain.ports import Evm, EvmUnavailable
from lockstep_chain.process import connected
from lockstep_chain.settings import ChainSettings
from lockstep_kit.db import Database, DatabaseSettings

#: Reads a service's settings from a file: of its database, and of its chain.
ReadSettings: TypeAlias = Callable[[str], tuple[DatabaseSettings, ChainSettings]]


async def in_its_place(evm: Evm, finality: Finality, held: HeldBlock) -> HeldBlock:
    """The chain's block at the height of the one that is held, or its highest final block where that is lower.

    Raises:
        EvmUnavailable: it cannot be read, or nothing is final.
    """
    found = await final_below(evm, finality, await latest(evm))
    if found is not None and found.number > held.number:
        found = await evm.block(held.number)
    if found is None:
        raise EvmUnavailable("nothing is final yet")
    return HeldBlock(found.number, found.hash)


async def look(db: Database, evm: Evm, finality: Finality) -> tuple[HeldBlock, HeldBlock] | None:
    """The block that is held to be final, and the chain's in its place; None while none is held."""
    async with db.connection() as connection:
        held = await final_store.held(connection, evm.chain_id)
    return None if held is None else (held, await in_its_place(evm, finality, held))


async def acknowledge(db: Database, evm: Evm, finality: Finality, named: bytes, finding: str) -> str:
    """Hold the chain's block in the place of the one that is held; why not, or ""."""
    seen = await look(db, evm, finality)
    if seen is None:
        return "no block is held to be final yet"
    held, found = seen
    if held == found:
        return "the chain has the block that is held: there is nothing to acknowledge"
    if found.hash != named:
        return f"the chain has 0x{found.hash.hex()} there, which is not the one that was named"
    async with db.transaction() as tx:
        if not await final_store.replace(tx, evm.chain_id, held, found, finding):
            return "another block is held by now: look again"
    return ""


def _told(block: HeldBlock) -> dict[str, object]:
    return {"number": block.number, "hash": f"0x{block.hash.hex()}"}


async def run(database: DatabaseSettings, chain: ChainSettings, named: bytes | None, finding: str) -> int:
    """Do what was asked; returns the exit status."""
    db = await Database.connect(database, application_name="finality")
    try:
        evm = await connected(chain)
        try:
            if named is None:
                return _show(await look(db, evm, chain.finality))
            why = await acknowledge(db, evm, chain.finality, named, finding)
        finally:
            await evm.close()
    finally:
        await db.close()
    if why:
        sys.stderr.write(f"{why}\n")
    return 1 if why else 0


def _show(seen: tuple[HeldBlock, HeldBlock] | None) -> int:
    held, found = seen or (None, None)
    told = {"held": held and _told(held), "chain": found and _told(found), "agree": held == found}
    sys.stdout.write(f"{json.dumps(told)}\n")
    return 0 if held == found else 1


def main(read: ReadSettings, prog: str, argv: Sequence[str] | None = None) -> int:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog=prog, description="Shows the block that is held to be final, and puts the chain's in its place."
    )
    parser.add_argument("--config", required=True, help="settings of the service, YAML")
    parser.add_argument("--acknowledge", type=_hash, metavar="HASH", help="hash of the chain's block, as shown")
    parser.add_argument("--finding", default="", help="what was found out about what was reported of the blocks that are gone")
    given = parser.parse_args(argv)
    if given.acknowledge is not None and not given.finding.strip():
        parser.error("--acknowledge needs --finding")
    return asyncio.run(run(*read(given.config), given.acknowledge, given.finding.strip()))


def _hash(text: str) -> bytes:
    found = bytes.fromhex(text.removeprefix("0x"))
    if len(found) != 32:
        raise ValueError("must be a hash of 32 bytes in hex")
    return found
