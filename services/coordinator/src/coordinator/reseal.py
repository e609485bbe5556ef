"""`python -m coordinator.reseal`: seal every plan's key to other keys, as the database's owner.

The first key file is the new service key, to which is sealed; the others open what was sealed before. One of them may be the recovery key's private half, for
when a service key was lost; that is done on the machine where it is kept. The service may run meanwhile, once every replica was given the new key too.
Exits with 1 when a key was left as it was, and says which.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import asyncpg

from coordinator.sealing import KeyBox, KeySealed, read_private_key, read_public_key
from coordinator.store.plans import SealedKey
from lockstep_kit import ids
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.owner_login import add_owner_arguments, owner_connection

PAGE: Final = 500

#: A page of keys, after a plan.
READ_SEALED: Final = """
select plan_id, service_key_id, service_sealed, recovery_key_id, recovery_sealed from decision_key where plan_id > $1 order by plan_id limit $2
"""

#: Seals a plan's key anew, unless somebody else has meanwhile.
RESEAL: Final = """
update decision_key set service_key_id = $2, service_sealed = $3, recovery_key_id = $4, recovery_sealed = $5
where plan_id = $1 and service_key_id = $6 and recovery_key_id = $7
"""


async def reseal(owner: asyncpg.Connection[asyncpg.Record], box: KeyBox) -> tuple[int, list[str]]:
    """How many keys were sealed anew, and a sentence for each that none of the box's keys opens. Doing it again does what is left."""
    count, left, after = 0, [], ""
    while rows := await owner.fetch(READ_SEALED, after, PAGE):
        after = rows[-1]["plan_id"]
        for row in rows:
            sealed = SealedKey(row["service_key_id"], row["service_sealed"], row["recovery_key_id"], row["recovery_sealed"])
            if box.is_current(sealed):
                continue
            plan_id = ids.plan_id(row["plan_id"])
            try:
                fresh = box.seal(plan_id, _opened(box, plan_id, sealed))
            except KeySealed as error:
                left.append(str(error))
                continue
            told = (fresh.service_key_id, fresh.service_sealed, fresh.recovery_key_id, fresh.recovery_sealed)
            done = await owner.execute(RESEAL, plan_id, *told, sealed.service_key_id, sealed.recovery_key_id)
            count += done == "UPDATE 1"
    return count, left


def _opened(box: KeyBox, plan_id: ids.PlanId, sealed: SealedKey) -> bytes:
    try:
        return box.open(plan_id, sealed.service_key_id, sealed.service_sealed)
    except KeySealed:
        return box.open(plan_id, sealed.recovery_key_id, sealed.recovery_sealed)


def main(argv: Sequence[str] | None = None) -> int:
    """Seal the keys anew; the exit code."""
    parser = argparse.ArgumentParser(description="Seal every plan's key to the first of the keys, and to the recovery key.")
    add_owner_arguments(parser)
    parser.add_argument(
        "--key-file", type=Path, action="append", required=True, help="the new key's file first, then the older ones'"
    )
    parser.add_argument("--recovery-public-key-file", type=Path, required=True, help="public half of the recovery key")
    told = parser.parse_args(argv)
    try:
        box = KeyBox([read_private_key(each) for each in told.key_file], read_public_key(told.recovery_public_key_file))
        count, left = asyncio.run(_run(told, box))
    except (FieldInvalid, OSError, asyncpg.PostgresError) as error:
        sys.stderr.write(f"not every key is under the new one: {error}\n")
        return 2
    sys.stdout.write(f"{count} keys were sealed anew\n")
    for each in left:
        sys.stderr.write(f"left as it was: {each}\n")
    return 1 if left else 0


async def _run(told: argparse.Namespace, box: KeyBox) -> tuple[int, list[str]]:
    async with owner_connection(told) as owner:
        return await reseal(owner, box)


if __name__ == "__main__":
    sys.exit(main())
