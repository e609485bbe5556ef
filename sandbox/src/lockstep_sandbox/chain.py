"""The chain: a real EVM node (anvil), drawn accounts, deployed contracts, minted tokens.

Nothing here is fixed: keys are drawn for each run, the node knows no developer accounts, and whoever signs for a service does it with a
keystore of its own (Web3 Secret Storage version 3, encrypted under a drawn password that lies beside it, both mode 0600).

What is lost at the edge: there is one node, so that services have one endpoint and believe it alone; and the whole chain, when its node ends: services see it
as a node that forgot everything. To have it out of reach for a while, pause the program instead.

Blocks come at once while everything is deployed, and every `block_seconds` from `begin_mining` on.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from eth_account import Account
from eth_account.signers.local import LocalAccount

from lockstep_sandbox.evm import Node
from lockstep_sandbox.ports import LOOPBACK, free_ports
from lockstep_sandbox.processes import Program, Supervisor
from lockstep_sandbox.runtime import ChainEndpoint, write_secret

CHAIN_ID = 138
NAME = "chain"
#: The account that deploys, administers the contracts and owns the tokens.
DEPLOYER = "deployer"
#: States of so many blocks are kept: `safe` and `finalized` can be asked for, reorganisations can be tried. Without a number the node keeps the newest state
#: only, and refuses every call at `finalized`. Under load its memory grows all the same, by 50 kB a plan at first and by 100 kB after 12,000 plans.
BLOCKS_KEPT = 64
ACCOUNT_WEI = 1_000 * 10**18
#: Rounds of key derivation: the passwords are 256 random bits, which no number of rounds makes harder to guess.
KEYSTORE_ROUNDS = 2**10


@dataclass(frozen=True, slots=True)
class KeystoreFiles:
    """An account's key, encrypted, and what opens it."""

    address: str
    keystore_file: Path
    password_file: Path


@dataclass
class Chain:
    """A running node with what was deployed on it. Use as an async context manager, inside the supervisor's."""

    supervisor: Supervisor
    #: Where keystores and chain.json go; exists.
    directory: Path
    #: Where the node listens; the same over restarts.
    port: int = field(default_factory=lambda: free_ports(1)[0])
    #: Name -> drawn account.
    accounts: dict[str, LocalAccount] = field(default_factory=dict, repr=False)
    #: Name of a contract -> its checksummed address.
    contracts: dict[str, str] = field(default_factory=dict)
    #: Symbol of a token -> its checksummed address.
    tokens: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.node = Node(f"http://{LOOPBACK}:{self.port}", CHAIN_ID)

    async def __aenter__(self) -> Self:
        await self.node.__aenter__()
        try:
            await self.supervisor.start(Program(NAME, self._command(), ready=self.node.answers))
            await self.fund(DEPLOYER)
        except BaseException:
            await self.node.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.node.__aexit__(kind, error, trace)
        await self.supervisor.stop(NAME)

    async def fund(self, *names: str) -> None:
        """Draws an account for each name that has none, and gives each coins for its gas."""
        for name in names:
            if name not in self.accounts:
                account: LocalAccount = Account.create()
                self.accounts[name] = account
            await self.node.call("anvil_setBalance", self.accounts[name].address, hex(ACCOUNT_WEI))

    def address(self, name: str) -> str:
        """The checksummed address of an account that was drawn."""
        return str(self.accounts[name].address)

    async def deploy(self, code: bytes, *, by: str = DEPLOYER) -> str:
        """Deploys a contract from its creation code with its arguments; returns its checksummed address."""
        return await self.node.deploy(self.accounts[by], code)

    async def transact(self, to: str, calldata: bytes, *, by: str = DEPLOYER) -> dict[str, Any]:
        """Sends a transaction; returns its receipt once it is mined."""
        return await self.node.send(self.accounts[by], to, calldata)

    async def begin_mining(self, block_seconds: int = 1) -> None:
        """From now on a block every `block_seconds`, as a chain has it."""
        await self.node.call("evm_setIntervalMining", block_seconds)

    def write_keystore(self, name: str) -> KeystoreFiles:
        """Writes the key of an account, encrypted, and the password beside it."""
        password = secrets.token_urlsafe(32)
        account = self.accounts[name]
        keystore = account.encrypt(password, kdf="scrypt", iterations=KEYSTORE_ROUNDS)
        return KeystoreFiles(
            address=account.address,
            keystore_file=write_secret(self.directory / f"{name}.keystore.json", json.dumps(keystore)),
            password_file=write_secret(self.directory / f"{name}.password", password),
        )

    def signer_settings(self, name: str) -> dict[str, str]:
        """How a service is told of an account that it signs with; writes its keystore."""
        files = self.write_keystore(name)
        return {
            "kind": "keystore",
            "keystore_file": str(files.keystore_file),
            "password_file": str(files.password_file),
            "address": files.address,
        }

    def describe(self) -> ChainEndpoint:
        """Where it is and what is on it; also written to chain.json."""
        endpoint = ChainEndpoint(
            rpc_url=self.node.url,
            chain_id=CHAIN_ID,
            contracts=self.contracts,
            tokens=self.tokens,
            accounts={name: account.address for name, account in self.accounts.items()},
        )
        write_secret(self.directory / "chain.json", endpoint.model_dump_json(indent=2) + "\n")
        return endpoint

    def _command(self) -> Sequence[str]:
        listening = ("--host", LOOPBACK, "--port", str(self.port), "--no-cors", "--quiet")
        chain = ("--chain-id", str(CHAIN_ID), "--accounts", "0", "--slots-in-an-epoch", "1")
        return (str(anvil()), *listening, *chain, "--prune-history", str(BLOCKS_KEPT))


def anvil() -> Path:
    """The node's program: LOCKSTEP_ANVIL, or what set-up installed.

    Raises:
        FileNotFoundError: It is not there.
    """
    named = os.environ.get("LOCKSTEP_ANVIL")
    installed = (folder / "tools" / "node_modules" / ".bin" / "anvil" for folder in Path(__file__).parents)
    for path in (Path(named),) if named else installed:
        if path.exists():
            return path
    raise FileNotFoundError("the EVM node is not installed: run `make setup`, or let LOCKSTEP_ANVIL name it")
