"""The node and the contracts as tests use them: calls that return decoded events or raise the contract's named error."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import itertools
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from eth_account import Account
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from lockstep_contracts import ContractError, LegStatus, LegTerms, decode_error, decode_log, leg_id_hash, leg_signing_hash
from lockstep_contracts import escrow as escrow_calls
from lockstep_contracts import notary as notary_calls
from lockstep_contracts import token as token_calls
from lockstep_contracts.artifacts import Artifact, parse_artifact
from lockstep_contracts.calldata import function
from lockstep_contracts.escrow import Permit

TESTS = Path(__file__).parent
ROOT = TESTS.parents[1]
CHAIN_ID = 138
GAS_LIMIT = 12_000_000
SUPPLY = 10**24


class NodeError(Exception):
    """The node answered a request with an error; a call ran out of gas, for example."""


class Reverted(NodeError):
    """A transaction reverted with this error."""

    def __init__(self, error: ContractError | None, raw: bytes) -> None:
        super().__init__(str(error) if error else "0x" + raw.hex())
        self.name = error.name if error else ""
        self.error = error
        self.raw = raw


@contextlib.contextmanager
def running_anvil() -> Iterator[int]:
    """Start a node on a free port; yields the port; stops the node whatever happens."""
    program = os.environ.get("LOCKSTEP_ANVIL") or str(ROOT / "tools" / "node_modules" / ".bin" / "anvil")
    command = [program, "--chain-id", str(CHAIN_ID), "--host", "127.0.0.1", "--port", "0", "--auto-impersonate", "--prune-history"]
    command += ["--gas-limit", "60000000", "--no-request-size-limit"]
    # A file, not a pipe: the node writes a line for each request, and would wait for ever for a reader.
    with tempfile.TemporaryFile("w+") as output, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process:
        try:
            yield _port_told_in(output)
        finally:
            process.terminate()


def _port_told_in(output: IO[str]) -> int:
    for _ in range(6_000):
        output.seek(0)
        if match := re.search(r"Listening on 127\.0\.0\.1:(\d+)", output.read()):
            return int(match.group(1))
        time.sleep(0.02)
    raise AssertionError("the node did not say where it listens")


@dataclass(frozen=True)
class Receipt:
    """What became of a transaction."""

    gas_used: int
    block_time: int
    events: tuple[object, ...]


class Chain:
    """JSON-RPC to one node, in which every address can send."""

    def __init__(self, port: int) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._ids = itertools.count(1)

    def rpc(self, method: str, *parameters: Any) -> Any:
        body = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": parameters}
        self._http.request("POST", "/", json.dumps(body), {"Content-Type": "application/json"})
        answer = json.loads(self._http.getresponse().read())
        if "error" in answer:
            revert_data = answer["error"].get("data")
            if isinstance(revert_data, str):
                raw = bytes.fromhex(revert_data.removeprefix("0x"))
                raise Reverted(decode_error(raw), raw)
            raise NodeError(f"{method}: {answer['error']}")
        return answer["result"]

    def call(self, to: str, calldata: bytes, *, sender: str | None = None, block: str = "latest", gas: int = GAS_LIMIT) -> bytes:
        request = {"to": to, "data": "0x" + calldata.hex(), "gas": hex(gas)} | ({"from": sender} if sender else {})
        return bytes.fromhex(self.rpc("eth_call", request, block).removeprefix("0x"))

    def send(self, sender: str, to: str | None, calldata: bytes, *, gas: int = GAS_LIMIT) -> Receipt:
        """Send and mine; raises Reverted with the contract's own error."""
        receipt = self._mined(sender, to, calldata, gas)
        number = int(receipt["blockNumber"], 16)
        if receipt["status"] != "0x1":
            assert to is not None
            # At the block itself, so that its time holds; a transaction that reverted changed nothing there.
            self.call(to, calldata, sender=sender, block=hex(number), gas=gas)
            raise AssertionError("reverted, and does not revert when asked again")
        block = self.rpc("eth_getBlockByNumber", hex(number), False)
        return Receipt(int(receipt["gasUsed"], 16), int(block["timestamp"], 16), tuple(_events(receipt["logs"])))

    def deploy(self, sender: str, creation_code: bytes) -> str:
        receipt = self._mined(sender, None, creation_code, GAS_LIMIT)
        assert receipt["status"] == "0x1"
        return to_checksum_address(receipt["contractAddress"])

    def pass_time(self, seconds: int) -> None:
        self.rpc("evm_increaseTime", seconds)
        self.rpc("evm_mine")

    def now(self) -> int:
        return int(self.rpc("eth_getBlockByNumber", "latest", False)["timestamp"], 16)

    def _mined(self, sender: str, to: str | None, calldata: bytes, gas: int) -> dict[str, Any]:
        request = {"from": sender, "data": "0x" + calldata.hex(), "gas": hex(gas)} | ({"to": to} if to else {})
        tx_hash = self.rpc("eth_sendTransaction", request)
        for _ in range(60_000):
            receipt: dict[str, Any] | None = self.rpc("eth_getTransactionReceipt", tx_hash)
            if receipt is not None:
                return receipt
            time.sleep(0.001)
        raise AssertionError("not mined")


def _events(logs: list[dict[str, Any]]) -> Iterator[object]:
    for log in logs:
        topics = [bytes.fromhex(topic.removeprefix("0x")) for topic in log["topics"]]
        event = decode_log(topics, bytes.fromhex(log["data"].removeprefix("0x")))
        if event is not None:
            yield event


@dataclass(frozen=True)
class Signer:
    """An account with its key."""

    account: Any

    @property
    def address(self) -> str:
        return str(self.account.address)

    def sign(self, digest: bytes) -> bytes:
        return bytes(self.account.unsafe_sign_hash(digest).signature)


def signer(name: str) -> Signer:
    return Signer(Account.from_key(keccak(text=name)))


def address(name: str) -> str:
    return to_checksum_address(keccak(text=name)[12:])


def hostile(name: str) -> Artifact:
    """A contract that only tests deploy."""
    return parse_artifact((TESTS / "artifacts" / f"{name}.json").read_text())


def method(contract: Artifact, name: str) -> Callable[..., bytes]:
    return function(contract, name).encode


@dataclass
class World:
    """The deployed contracts, and who acts on them."""

    chain: Chain
    escrow: str
    registry: str
    token: str
    admin: str
    operator: str
    arbiter: str
    pauser: str
    payer: Signer
    payee: str
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @classmethod
    def deploy(cls, chain: Chain) -> World:
        admin, operator, arbiter, pauser = (address(name) for name in ("admin", "operator", "arbiter", "pauser"))
        payer = signer("payer")
        for account in (admin, operator, arbiter, pauser, payer.address, address("stranger")):
            chain.rpc("anvil_setBalance", account, hex(10**24))
        made = escrow_calls.encode_escrow_deployment(admin=admin, operator=operator, arbiter=arbiter, pauser=pauser)
        escrow = chain.deploy(admin, made)
        registry = chain.deploy(admin, notary_calls.encode_registry_deployment(admin=admin, operator=operator))
        token = chain.deploy(admin, token_calls.encode_token_deployment(name="Bond", symbol="BND", decimals=6, owner=admin))
        world = cls(chain, escrow, registry, token, admin, operator, arbiter, pauser, payer, address("payee"))
        world.fund(token, payer.address)
        return world

    # -- acting ------------------------------------------------------------------------------------------------------

    def fund(self, token: str, owner: str) -> None:
        self.chain.rpc("anvil_setBalance", owner, hex(10**24))
        self.chain.send(self.admin, token, token_calls.encode_mint(owner, SUPPLY))
        self.chain.send(owner, token, token_calls.encode_approve(self.escrow, 2**256 - 1))

    def hostile_token(self, name: str) -> str:
        token = self.chain.deploy(self.admin, hostile(name).bytecode)
        self.fund(token, self.payer.address)
        return token

    def set_flag(self, name: str, token: str, setter: str, *arguments: Any) -> None:
        self.chain.send(self.admin, token, method(hostile(name), setter)(*arguments))

    def key(self, number: int) -> bytes:
        return keccak(text=f"key {number}")

    def leg(self, **changes: Any) -> tuple[LegTerms, bytes]:
        """Terms of a leg that was not seen before, with its key."""
        key = self.key(next(self._numbers))
        terms = LegTerms(
            plan_digest=keccak(key),
            leg_id_hash=leg_id_hash("delivery"),
            token=self.token,
            payer=self.payer.address,
            payee=self.payee,
            amount=1_000,
            lock=hashlib.sha256(key).digest(),
            prepare_by=self.chain.now() + 3600,
        )
        return replace(terms, **changes), key

    def sign(self, terms: LegTerms, by: Signer | None = None) -> bytes:
        return (by or self.payer).sign(leg_signing_hash(CHAIN_ID, self.escrow, terms))

    def operate(self, calldata: bytes, *, gas: int = GAS_LIMIT) -> Receipt:
        return self.chain.send(self.operator, self.escrow, calldata, gas=gas)

    def permit(
        self, owner: Signer, value: int, *, token: str | None = None, nonce: int | None = None, seconds: int = 3600
    ) -> Permit:
        """A permit for the escrow, signed; by default with the owner's next nonce."""
        token = token or self.token
        used = (
            token_calls.decode_count(self.chain.call(token, token_calls.encode_nonces(owner.address))) if nonce is None else nonce
        )
        deadline = self.chain.now() + seconds
        terms = token_calls.PermitTerms(owner.address, self.escrow, value, used, deadline)
        separator = self.chain.call(token, token_calls.encode_domain_separator())
        return Permit(value, deadline, owner.sign(token_calls.permit_signing_hash(separator, terms)))

    def allowance(self, owner: str, token: str | None = None) -> int:
        return token_calls.decode_count(self.chain.call(token or self.token, token_calls.encode_allowance(owner, self.escrow)))

    def prepare(self, terms: LegTerms, signature: bytes | None = None, permit: Permit | None = None) -> Receipt:
        signed = self.sign(terms) if signature is None else signature
        return self.operate(escrow_calls.encode_prepare(terms, signed, permit))

    def prepared(self, **changes: Any) -> tuple[LegTerms, bytes]:
        """A leg that is prepared."""
        terms, key = self.leg(**changes)
        self.prepare(terms)
        return terms, key

    def commit(self, terms: LegTerms, key: bytes) -> Receipt:
        return self.operate(escrow_calls.encode_commit(terms, key))

    def committed(self, **changes: Any) -> tuple[LegTerms, bytes]:
        """A leg that is committed."""
        terms, key = self.prepared(**changes)
        self.commit(terms, key)
        return terms, key

    def reverse(self, terms: LegTerms) -> Receipt:
        return self.operate(escrow_calls.encode_reverse(terms))

    def control(self, token: str | None = None) -> None:
        """Make the escrow a controller of the token."""
        self.chain.send(self.admin, token or self.token, token_calls.encode_add_agent(self.escrow))

    def abort(self, terms: LegTerms) -> Receipt:
        return self.operate(escrow_calls.encode_abort(terms))

    def arbitrate(self, calldata: bytes) -> Receipt:
        return self.chain.send(self.arbiter, self.escrow, calldata)

    def notarise(self, calldata: bytes) -> Receipt:
        return self.chain.send(self.operator, self.registry, calldata)

    # -- looking -----------------------------------------------------------------------------------------------------

    def status(self, terms: LegTerms) -> LegStatus:
        return escrow_calls.decode_status_of(self.chain.call(self.escrow, escrow_calls.encode_status_of(terms.leg_key)))

    def statuses(self, legs: Sequence[LegTerms]) -> list[LegStatus]:
        asked = escrow_calls.encode_status_of_many([terms.leg_key for terms in legs])
        return list(escrow_calls.decode_status_of_many(self.chain.call(self.escrow, asked)))

    def balance(self, owner: str, token: str | None = None) -> int:
        return token_calls.decode_count(self.chain.call(token or self.token, token_calls.encode_balance_of(owner)))

    def locked(self, token: str | None = None) -> int:
        return token_calls.decode_count(self.chain.call(self.escrow, escrow_calls.LOCKED_TOTAL.encode(token or self.token)))

    def claimable(self, token: str, owner: str) -> int:
        return token_calls.decode_count(self.chain.call(self.escrow, escrow_calls.CLAIMABLE_OF.encode(token, owner)))

    def claimable_total(self, token: str | None = None) -> int:
        return token_calls.decode_count(self.chain.call(self.escrow, escrow_calls.CLAIMABLE_TOTAL.encode(token or self.token)))

    def assert_conserved(self, token: str | None = None) -> None:
        """What the escrow owns of a token is what it owes."""
        assert self.balance(self.escrow, token) == self.locked(token) + self.claimable_total(token)
