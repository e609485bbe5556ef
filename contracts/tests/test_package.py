"""The Python side: typed data, encoders, decoders and artifacts, without a node."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from contracts_world import CHAIN_ID, ROOT, address, signer
from eth_abi.abi import encode
from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak

from lockstep_contracts import LegTerms, artifact, decode_error, decode_log, event_topic, leg_key, leg_signing_hash, leg_typed_data
from lockstep_contracts import escrow as calls
from lockstep_contracts.events import Skipped, Tombstoned

TERMS = LegTerms(
    plan_digest=keccak(text="plan"),
    leg_id_hash=calls.leg_id_hash("delivery"),
    token=address("token"),
    payer=address("payer"),
    payee=address("payee"),
    amount=2**96 - 1,
    lock=keccak(text="lock"),
    prepare_by=2**63,
)
ESCROW = address("escrow")
#: Contracts of HostileTokens.sol.
HOSTILE = (
    "AgreeableToken",
    "BlockingToken",
    "BombPermitToken",
    "ControlledToken",
    "FalseToken",
    "FeeToken",
    "ReentrantToken",
    "SilentToken",
    "VerboseToken",
)


def test_typed_data_is_what_wallets_sign() -> None:
    """An independent EIP-712 implementation, given the document as JSON, hashes and signs it the same."""
    document = json.loads(json.dumps(leg_typed_data(CHAIN_ID, ESCROW, TERMS)))
    signable = encode_typed_data(full_message=document)
    hashed = keccak(b"\x19" + signable.version + signable.header + signable.body)
    assert hashed == leg_signing_hash(CHAIN_ID, ESCROW, TERMS)
    payer = signer("payer")
    assert bytes(payer.account.sign_message(signable).signature) == payer.sign(hashed)


def test_every_field_of_the_terms_is_signed() -> None:
    """Changing any one of them, the chain or the contract changes what is signed."""
    word, other = keccak(text="other"), address("other")
    changes: dict[str, Any] = {
        "plan_digest": word, "leg_id_hash": word, "token": other, "payer": other, "payee": other,
        "amount": 1, "lock": word, "prepare_by": 1,
    }  # fmt: skip
    hashes = {leg_signing_hash(CHAIN_ID, ESCROW, replace(TERMS, **{name: value})) for name, value in changes.items()}
    hashes |= {leg_signing_hash(1, ESCROW, TERMS), leg_signing_hash(CHAIN_ID, other, TERMS)}
    assert len(hashes | {leg_signing_hash(CHAIN_ID, ESCROW, TERMS)}) == len(changes) + 3


def test_a_leg_is_named_as_documented() -> None:
    """keccak256(abi.encode(planDigest, keccak256(bytes(legId))))."""
    assert leg_key(TERMS.plan_digest, "delivery") == TERMS.leg_key
    assert TERMS.leg_key == keccak(encode(["bytes32", "bytes32"], [TERMS.plan_digest, keccak(b"delivery")]))


@pytest.mark.parametrize(
    "change",
    [{"amount": 0}, {"amount": 2**96}, {"lock": b""}, {"plan_digest": bytes(31)}, {"payer": "0x12"}, {"prepare_by": 2**64}],
)
def test_terms_that_cannot_be_encoded_cannot_exist(change: dict[str, Any]) -> None:
    """One such item would make a whole batch undecodable."""
    with pytest.raises(ValueError, match=r"bytes|addresses|amount"):
        replace(TERMS, **change)


def test_calldata_begins_with_the_selector_of_the_signature() -> None:
    """Selectors are those of the canonical signatures."""
    leg = "(bytes32,bytes32,address,address,address,uint256,bytes32,uint64)"
    assert calls.encode_prepare(TERMS, b"").startswith(
        keccak(text=f"prepare({leg},bytes,(uint256,uint256,uint8,bytes32,bytes32))")[:4]
    )
    assert calls.encode_try_commit_many([TERMS], [bytes(32)]).startswith(keccak(text=f"tryCommitMany({leg}[],bytes32[])")[:4])
    assert calls.encode_tombstone(bytes(32)) == keccak(text="tombstone(bytes32)")[:4] + bytes(32)


def test_foreign_logs_and_errors_are_none() -> None:
    """What these contracts did not say is not guessed at."""
    topic = event_topic(Tombstoned)
    assert decode_log([topic, bytes(32)], b"") == Tombstoned(bytes(32))
    foreign: list[tuple[list[bytes], bytes]] = [
        ([], b""),
        ([keccak(text="Other()")], b""),
        ([topic], b""),
        ([event_topic(Skipped), bytes(32)], b"\x01"),
    ]
    for topics, log_data in foreign:
        assert decode_log(topics, log_data) is None
    assert [decode_error(raw) for raw in (b"", b"\x01\x02\x03\x04", keccak(text="BadState(bytes32,uint8)")[:4])] == [None] * 3


def test_errors_are_named_with_their_arguments() -> None:
    """The contract's, the token's and Solidity's own."""
    raw = keccak(text="SignatureInvalid(bytes32,address)")[:4] + encode(["bytes32", "address"], [bytes(32), TERMS.payer])
    assert str(decode_error(raw)) == f"SignatureInvalid(legKey=0x{'00' * 32}, payer={TERMS.payer})"
    assert str(decode_error(keccak(text="Error(string)")[:4] + encode(["string"], ["blocked"]))) == "Error(message=blocked)"


def test_artifacts_are_compiled_as_pinned_and_hold_no_path() -> None:
    """Compiler, library and settings are in each artifact; nothing of the machine is."""
    for name in ("SettlementEscrow", "NotaryRegistry", "SandboxToken"):
        text = (ROOT / "contracts" / "src" / "lockstep_contracts" / "artifacts" / f"{name}.json").read_text()
        document = json.loads(text)
        assert document["compiler"].startswith("0.8.37+")
        assert document["library"] == "@openzeppelin/contracts@5.7.0"
        assert document["settings"]["evmVersion"] == "paris"
        assert document["source"] == f"contracts/src/{name}.sol"
        assert str(ROOT) not in text
        assert artifact(name).bytecode.hex() == document["bytecode"].removeprefix("0x")
        assert document["deployed_bytes"] <= 24_576  # EIP-170
    with pytest.raises(KeyError):
        artifact("Unknown")


def test_drift_of_an_artifact_is_found(tmp_path: Path) -> None:
    """A changed source, a missing and a stray artifact fail the check by name; what agrees is not named."""
    kept = ("SandboxToken", "HostileTokens", *HOSTILE)
    for folder in ("contracts/src", "contracts/tests"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".sol", ".json") and path.stem in kept:
                target = tmp_path / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    script = tmp_path / "contracts" / "compile.mjs"
    script.write_bytes((ROOT / "contracts" / "compile.mjs").read_bytes())
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    source = tmp_path / "contracts" / "src" / "SandboxToken.sol"
    source.write_text(source.read_text().replace("_mint(to, amount)", "_mint(to, amount + 1)"))
    (tmp_path / "contracts" / "tests" / "artifacts" / "FeeToken.json").unlink()
    (tmp_path / "contracts" / "tests" / "artifacts" / "Stray.json").write_text("{}")
    command = [sys.executable, str(ROOT / "tools" / "node.py"), "node", str(script), "--check"]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert run.returncode == 1
    named = [line.split(": ")[0].rpartition("/")[2] for line in run.stderr.splitlines() if ".json" in line]
    assert named == ["Stray.json", "SandboxToken.json", "FeeToken.json"]
    assert "SandboxToken.json: differs from what its source compiles to (" in run.stderr
