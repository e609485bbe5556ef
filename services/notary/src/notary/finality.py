"""`python -m notary.finality --config FILE`: the block that is held to be final, and what to do when the chain has another one there."""

from __future__ import annotations

import sys

from lockstep_chain import acknowledging
from lockstep_chain.settings import ChainSettings
from lockstep_kit.db import DatabaseSettings
from lockstep_kit.settings import load
from notary.settings import NotarySettings


def read(path: str) -> tuple[DatabaseSettings, ChainSettings]:
    """Settings of the database and of the chain, from the service's file."""
    settings = load(NotarySettings, ["--config", path])
    return settings.database, settings.chain


if __name__ == "__main__":
    sys.exit(acknowledging.main(read, "notary.finality"))
