"""The participants on the chain, put together as `dlt_gateway.main`, `notary.main` and `lockstep_chain.process` do it, over the simulated node."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dlt_gateway.operations import EscrowBook
from dlt_gateway.settings import DltGatewaySettings
from lockstep_chain.process import ContractParticipant
from lockstep_chain.settings import ChainSettings
from lockstep_chain.signers.settings import KeystoreSettings
from lockstep_kit.db import DatabaseSettings
from lockstep_kit.ids import sha256
from lockstep_kit.participant.process import ParticipantProcess
from lockstep_kit.participant.settings import ParticipantSettings
from lockstep_kit.plan import LegKind
from lockstep_kit.registry import Registry
from lockstep_kit.rpc import TlsSettings
from lockstep_testkit.factories import CHAIN, PARTICIPANTS, address_of, key_of, token_terms
from lockstep_testkit.simulation.chain_contracts import UNLIMITED, Contracts, Escrow, State
from lockstep_testkit.simulation.chain_port import SimulatedEvm
from lockstep_testkit.simulation.chance import Seeded
from lockstep_testkit.simulation.loop import Process
from lockstep_testkit.simulation.node import BLOCK_SECONDS, FINAL_DEPTH, Node, PlainSigner
from lockstep_testkit.simulation.registry_contract import NotaryRegistry
from notary.operations import RegistryBook

if TYPE_CHECKING:
    from lockstep_chain.book import ContractBook
    from lockstep_kit.db import Database

DLT_GATEWAY, NOTARY = PARTICIPANTS[LegKind.TOKEN_TRANSFER], PARTICIPANTS[LegKind.NOTARISATION]
CHAIN_ID: Final = int(CHAIN.removeprefix("eip155:"))
ESCROW, TOKEN, REGISTRY, SELLER = (address_of(name) for name in ("escrow", "token", "registry", "seller"))
ACCOUNTS: Final = (DLT_GATEWAY, NOTARY)
JUDGE_SECONDS: Final = 2.0
#: A gateway signs with so many accounts at the most.
SIGNERS_MAX: Final = 3

_NO_FILE: Final = Path("none")


def signers_of(name: str, count: int) -> tuple[str, ...]:
    """Addresses of a gateway's accounts."""
    return tuple(address_of(f"{name}/{number}") for number in range(count))


@dataclass(frozen=True, slots=True)
class Manner:
    """How the machines of one seed are set up."""

    #: Whether the chain itself says what is final.
    by_tag: bool
    #: Transactions signed and not mined at the most, and those signed together.
    unmined_max: int
    assign_batch_max: int


def _manner(chance: random.Random) -> Manner:
    """One of many."""
    return Manner(chance.random() < 0.4, chance.choice((1, 3, 200)), chance.choice((1, 2, 100)))


@cache
def chain_settings(manner: Manner) -> ChainSettings:
    """Settings of both machines; short times, as everywhere in a simulation."""
    return ChainSettings(
        rpc_urls=["http://none"],
        single_endpoint=True,
        chain_id=CHAIN_ID,
        finality_tag="finalized" if manner.by_tag else None,
        finality_depth=None if manner.by_tag else FINAL_DEPTH,
        signers=(KeystoreSettings(kind="keystore", keystore_file=_NO_FILE, password_file=_NO_FILE),),
        poll_seconds=0.5,
        lease_seconds=1.5,
        unmined_max=manner.unmined_max,
        assign_batch_max=manner.assign_batch_max,
    )


@cache
def settings_of(manner: Manner) -> DltGatewaySettings:
    """Settings of the dlt-gateway; the notary's are the same, as far as it has them."""
    return DltGatewaySettings(
        database=DatabaseSettings(url="postgresql://dlt_gateway@none/none"),
        tls=TlsSettings(certificate_file=_NO_FILE, key_file=_NO_FILE, ca_file=_NO_FILE),
        participant=ParticipantSettings(signing_key_file=_NO_FILE, registry_file=_NO_FILE, wait_seconds_max=1.0),
        chain=chain_settings(manner),
        escrow=ESCROW,
        tokens={token_terms().amount.asset: token_terms().amount.scale},
        judge_seconds=JUDGE_SECONDS,
    )


class ChainParty:
    """The chain with its contracts, and what their gateways are made of."""

    def __init__(self, seeded: Seeded, outside: Process, counts: dict[str, int], tokens: int) -> None:
        count = seeded.stream("accounts").randint(1, SIGNERS_MAX)
        #: Addresses of each gateway's accounts.
        self.signers: Final = {name: signers_of(name, count) for name in ACCOUNTS}
        escrow = Escrow(ESCROW, TOKEN, self.signers[DLT_GATEWAY], CHAIN_ID)
        contracts = Contracts(escrow, NotaryRegistry(REGISTRY, self.signers[NOTARY]))
        chance = seeded.stream("chain")
        # All tokens are the seller's, who lets the escrow spend them, or not quite all of them.
        allowed = chance.choice((UNLIMITED, UNLIMITED, tokens, tokens // 2))
        state = State(balances={SELLER: tokens}, allowances={SELLER: allowed})
        self.node: Final = Node(outside.loop, chance, contracts, state, counts)
        self._settings = settings_of(_manner(chance))
        self._outside = outside
        self._drawn = itertools.count()
        #: One way to the node per gateway; what goes wrong on it is the seed's to say, whatever is started again.
        self._evms = {name: SimulatedEvm(self.node, CHAIN_ID, seeded.stream(f"evm/{name}"), outside.loop) for name in ACCOUNTS}

    def gateway(self, name: str, db: Database, registry: Registry) -> ContractParticipant:
        """The dlt-gateway or the notary, with its accounts."""
        settings = self._settings
        process = ParticipantProcess(name, settings, settings.participant, db, key_of(name), registry, sha256(b"registry"))
        book: ContractBook = EscrowBook(CHAIN, ESCROW, settings.tokens) if name == DLT_GATEWAY else RegistryBook(CHAIN, REGISTRY)
        signers = [PlainSigner(address, self._drawn) for address in self.signers[name]]
        return ContractParticipant.over(process, book, self._evms[name], signers, settings.chain, settings.judge_seconds)

    def mine(self) -> None:
        """Make blocks from now on."""
        self.node.mine()
        self._outside.loop.call_later(BLOCK_SECONDS, self.mine, context=self._outside.context())
