"""What a service with a contract tells of its chain: whom it reaches, how old the head is, what its accounts have, and nonces that nobody will ever use."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from lockstep.installation.v1.installation_service_pb2 import AccountState, ChainState
from lockstep_chain.ports import Block, Evm, EvmUnavailable, Signer, Tag
from lockstep_kit.convert import time_to_pb
from lockstep_kit.db import Database
from lockstep_kit.installation import PartUnknown
from lockstep_kit.values import dataclass

#: Nonces that are named at the most.
MISSING_MAX: Final = 16

#: An account's next nonce by the book; none where it has not signed yet.
NEXT_NONCE: Final = "select next_nonce from evm_signer where chain_id = $1 and address = $2"

#: Nonces from the chain's next on to the book's next for which there is no transaction. The range is bounded: nodes keep few.
MISSING: Final = """
select nonce from generate_series($3::bigint, least($4::bigint, $3::bigint + 10000) - 1) as nonce
where not exists (select from evm_transaction where chain_id = $1 and signer = $2 and evm_transaction.nonce = nonce.nonce)
order by nonce limit $5
"""


@dataclass(frozen=True, slots=True)
class ChainInspection:
    """Asks a service's nodes and its book."""

    #: The service's database.
    db: Database
    #: The chain.
    evm: Evm
    #: The accounts.
    signers: Sequence[Signer]

    async def state(self) -> ChainState:
        """What is told of the chain now.

        Raises:
            PartUnknown: the nodes give no answer to conclude from.
        """
        try:
            head = await self.evm.block(Tag.LATEST)
            if head is None:
                raise PartUnknown("the nodes have no block")
            accounts = await asyncio.gather(*(self._account(each.address, head) for each in self.signers))
        except EvmUnavailable as error:
            raise PartUnknown(str(error)) from None
        total, counting = self.evm.reach
        return ChainState(
            chain_id=self.evm.chain_id,
            node_count=total,
            counting_count=counting,
            head_number=head.number,
            head_time=time_to_pb(datetime.fromtimestamp(head.timestamp, UTC)),
            accounts=accounts,
        )

    async def _account(self, address: str, head: Block) -> AccountState:
        conditions = await self.evm.conditions(address)
        mined = await self.evm.nonce(address, head.number)
        async with self.db.connection() as connection:
            booked: int | None = await connection.fetchval(NEXT_NONCE, self.evm.chain_id, address)
            following = mined if booked is None else booked
            rows = await connection.fetch(MISSING, self.evm.chain_id, address, mined, following, MISSING_MAX)
        return AccountState(
            address=address,
            balance_wei=str(conditions.balance),
            mined_nonce=mined,
            next_nonce=following,
            missing_nonces=[row["nonce"] for row in rows],
        )
