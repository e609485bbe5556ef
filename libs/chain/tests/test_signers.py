"""Signers, whatever keeps their keys: the same tests over an encrypted keystore and a hardware security module (SoftHSM)."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from chain_world import CHAIN_ID, SECONDS_MAX, World, running
from eth_account import Account
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from eth_typing import Hash32
from eth_utils.crypto import keccak
from hexbytes import HexBytes
from pydantic import TypeAdapter, ValidationError

from lockstep_chain.ports import Fees, Signer, SignerUnavailable, Unsigned
from lockstep_chain.signers import pkcs11
from lockstep_chain.signers.envelope import signing_hash
from lockstep_chain.signers.opening import opened
from lockstep_chain.signers.settings import SignerSettings
from lockstep_kit.fields import FieldInvalid
from lockstep_testkit.softhsm import SoftHsm

KINDS = ("keystore", "pkcs11")
ONE = Unsigned(CHAIN_ID, 5, "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", 7, b"data", 50_000, Fees(10, 1))
_SETTINGS: TypeAdapter[SignerSettings] = TypeAdapter(SignerSettings)


@pytest.fixture(scope="module")
def hsm(softhsm: SoftHsm) -> SoftHsm:
    """Two tokens with keys."""
    softhsm.add_token("one")
    softhsm.add_token("two")
    softhsm.add_key("one", "key", b"\x01")
    softhsm.add_key("one", "second", b"\x02")
    softhsm.add_key("one", "twice")
    softhsm.add_key("one", "twice")
    softhsm.add_key("one", "open", extractable=True)
    softhsm.add_key("one", "readable", sensitive=False)
    softhsm.add_key("one", "other curve", curve="secp256r1")
    softhsm.add_key("two", "key", b"\x01")
    return softhsm


def keystore_settings(folder: Path, **changes: Any) -> dict[str, Any]:
    account = Account.create()
    keystore, password = folder / f"{account.address}.json", folder / f"{account.address}.password"
    for path, text in ((keystore, json.dumps(account.encrypt("right", kdf="scrypt", iterations=2**10))), (password, "right\n")):
        path.touch(mode=0o600)
        path.write_text(text)
    return {"kind": "keystore", "keystore_file": str(keystore), "password_file": str(password)} | changes


def pkcs11_settings(hsm: SoftHsm, **changes: Any) -> dict[str, Any]:
    token = changes.get("token_label", "one")
    given = {
        "kind": "pkcs11",
        "module_file": str(hsm.module),
        "token_label": token,
        "pin_file": str(hsm.pin_file(token if token in hsm.pins else "one")),
        "key_label": "key",
    }
    return {name: value for name, value in (given | changes).items() if value is not None}


def settings_of(*told: dict[str, Any]) -> list[SignerSettings]:
    return [_SETTINGS.validate_python(each) for each in told]


@pytest.fixture(params=KINDS)
def told(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Settings of an account of each kind."""
    if request.param == "keystore":
        return keystore_settings(tmp_path)
    return pkcs11_settings(request.getfixturevalue("hsm"))


@pytest_asyncio.fixture(loop_scope="session")
async def signer(told: dict[str, Any]) -> AsyncIterator[Signer]:
    async with opened(settings_of(told)) as (only,):
        yield only


def parts(raw: bytes) -> dict[str, Any]:
    """A transaction's fields, as a library that is not ours reads them."""
    found: dict[str, Any] = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
    return found


async def test_a_signature_is_the_accounts(signer: Signer) -> None:
    """What is signed says what was asked, recovers to the account, has its s in the lower half, and is known by its hash."""
    (signed,) = await signer.sign([ONE])
    assert Account.recover_transaction(signed.raw) == signer.address
    found = parts(signed.raw)
    names = ("type", "chainId", "nonce", "value", "gas", "maxFeePerGas", "maxPriorityFeePerGas")
    assert [found[name] for name in names] == [2, CHAIN_ID, 5, 7, 50_000, 10, 1]
    assert (bytes(found["to"]), bytes(found["data"])) == (bytes.fromhex(ONE.to[2:]), b"data")
    assert signed.hash == keccak(signed.raw)
    assert 0 < found["s"] <= pkcs11.ORDER // 2


async def test_many_signatures_in_one_call(signer: Signer) -> None:
    """Two hundred transactions in one call are signed in their order; each has its s in the lower half and recovers to the account."""
    asked = [Unsigned(CHAIN_ID, nonce, ONE.to, 0, bytes([nonce]), 50_000, Fees(10, 1)) for nonce in range(200)]
    signed = await signer.sign(asked)
    found = [parts(each.raw) for each in signed]
    assert [each["nonce"] for each in found] == list(range(200))
    assert all(0 < each["s"] <= pkcs11.ORDER // 2 for each in found)
    assert {Account.recover_transaction(each.raw) for each in signed} == {signer.address}
    assert {each["v"] for each in found} == {0, 1}


async def test_a_real_node_takes_it(world: World, signer: Signer) -> None:
    """The node knows the transaction by the hash that was told before it was sent, and mines it as the account's."""
    await world.node.call("anvil_setBalance", signer.address, hex(10**18))
    (signed,) = await signer.sign([Unsigned(CHAIN_ID, 0, world.contract, 0, b"hello", 100_000, Fees(50 * 10**9, 10**9))])
    assert await world.node.call("eth_sendRawTransaction", "0x" + signed.raw.hex()) == "0x" + signed.hash.hex()
    await world.mine()
    receipt = await world.node.call("eth_getTransactionReceipt", "0x" + signed.hash.hex())
    assert (receipt["status"], receipt["from"]) == ("0x1", signer.address.lower())
    assert await world.effects() == [b"hello"]


async def test_a_machine_over_it(world: World, signer: Signer) -> None:
    """A machine brings its transactions to their end with such a signer."""
    await world.node.call("anvil_setBalance", signer.address, hex(10**20))
    machine = await world.machine(signing=[signer])
    async with running(machine):
        await world.enqueue(machine, "one", "two")
        assert await world.until_told(2) == {"one": "final", "two": "final"}
    assert await world.effects() == [b"one", b"two"]


async def test_the_address_that_settings_expect(told: dict[str, Any]) -> None:
    """A key whose address is not the one that settings expect refuses to start, and so does an account that is named twice."""
    async with opened(settings_of(told)) as (signer,):
        address = signer.address
    async with opened(settings_of(told | {"address": address})) as (again,):
        assert again.address == address
    for settings, field in (
        ([told | {"address": ONE.to}], "chain.signers[0].address"),
        ([told, told], "chain.signers[1].address"),
    ):
        with pytest.raises(FieldInvalid) as refused:
            async with opened(settings_of(*settings)):
                pass
        assert (refused.value.field, address in refused.value.rule) == (field, True)


def spoil(path: str, text: str | None, mode: int | None = None) -> None:
    """Another text, another mode, or neither."""
    if text is not None:
        Path(path).write_text(text)
    if mode is not None:
        Path(path).chmod(mode)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"password": "wrong"}, "password_file"),
        ({"password_mode": 0o640}, "password_file"),
        ({"keystore_mode": 0o604}, "keystore_file"),
        ({"password_file": "/nowhere"}, "password_file"),
        ({"keystore": "no keystore"}, "keystore_file"),
    ],
)
async def test_a_keystore_that_does_not_open(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    """What is wrong with a keystore is said by its field; no secret is shown."""
    told = keystore_settings(tmp_path) | {name: value for name, value in change.items() if name == "password_file"}
    for name in ("keystore", "password"):
        spoil(told[f"{name}_file"], change.get(name), change.get(f"{name}_mode"))
    with pytest.raises(FieldInvalid) as refused:
        async with opened(settings_of(told)):
            pass
    assert (refused.value.field, "right" in str(refused.value)) == (f"chain.signers[0].{field}", False)


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"module_file": "/nowhere/module.so"}, "module_file", "can be loaded"),
        ({"module_file": __file__}, "module_file", "can be loaded"),
        ({"token_label": "three"}, "token_label", "label of a token"),
        ({"key_label": "none"}, "key_label", "no such private key"),
        ({"key_label": None, "key_id": "0909"}, "key_id", "no such private key"),
        ({"key_id": "02"}, "key_label", "no such private key"),
        ({"key_label": "twice"}, "key_label", "more than one"),
        ({"key_label": "open"}, "key_label", "not EXTRACTABLE"),
        ({"key_label": "readable"}, "key_label", "SENSITIVE"),
        ({"key_label": "other curve"}, "key_label", "secp256k1"),
        ({"pin_file": "/nowhere"}, "pin_file", "readable file"),
    ],
)
async def test_what_a_token_does_not_have(hsm: SoftHsm, change: dict[str, Any], field: str, says: str) -> None:
    """A wrong module, token, or key refuses to start, by the name of the field."""
    with pytest.raises(FieldInvalid) as refused:
        async with opened(settings_of(pkcs11_settings(hsm, **change))):
            pass
    assert (refused.value.field, says in refused.value.rule) == (f"chain.signers[0].{field}", True), str(refused.value)


@pytest.mark.parametrize(("pin", "mode"), [("0000000", 0o600), ("", 0o600), (None, 0o644)])
async def test_a_wrong_pin(
    hsm: SoftHsm, pin: str | None, mode: int, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """A PIN that the token refuses, or that others may read, refuses to start; no PIN is ever shown."""
    caplog.set_level(logging.DEBUG)
    file = hsm.pin_file("two", pin=pin, mode=mode)
    with pytest.raises(FieldInvalid) as refused:
        async with opened(settings_of(pkcs11_settings(hsm, token_label="two", pin_file=str(file)))):
            pass
    assert refused.value.field == "chain.signers[0].pin_file"
    shown = str(refused.value) + caplog.text + "".join(capsys.readouterr())
    assert not any(secret in shown for secret in (*hsm.pins.values(), "0000000"))


@pytest.mark.parametrize("told", [{}, {"key_label": "key", "key_id": "1"}, {"key_label": "key", "address": "0x1"}])
def test_settings_of_a_token(told: dict[str, Any]) -> None:
    """A key without a name, an id that is no hex, and an address that is none are refused when the settings are read."""
    with pytest.raises(ValidationError):
        settings_of({"kind": "pkcs11", "module_file": "/module", "token_label": "one", "pin_file": "/pin"} | told)


async def test_the_same_transaction_gives_other_bytes(hsm: SoftHsm) -> None:
    """A token draws a nonce for each signature: nobody may sign again what was stored, and expect the bytes that were sent."""
    async with opened(settings_of(pkcs11_settings(hsm))) as (signer,):
        (first,), (second,) = await signer.sign([ONE]), await signer.sign([ONE])
    assert first != second
    assert {Account.recover_transaction(each.raw) for each in (first, second)} == {signer.address}


async def test_a_session_that_is_lost(hsm: SoftHsm) -> None:
    """A token that was away for a moment, and has forgotten who was logged in, is logged in to again, by each of its accounts."""
    settings = settings_of(pkcs11_settings(hsm), pkcs11_settings(hsm, key_label="second"), pkcs11_settings(hsm, token_label="two"))
    async with opened(settings) as signers:
        assert len({each.address for each in signers}) == 3
        for _ in range(3):
            hsm.end_sessions()
            for each in signers:
                (signed,) = await each.sign([ONE])
                assert Account.recover_transaction(signed.raw) == each.address


async def test_a_pin_that_is_refused_is_not_tried_again(hsm: SoftHsm, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token whose PIN has changed gives no signature, and is asked once only: so many wrong PINs lock it."""
    told = pkcs11_settings(hsm, token_label="two")
    async with opened(settings_of(told)) as (signer,):
        spoil(told["pin_file"], "0000000")
        hsm.end_sessions()
        with pytest.raises(SignerUnavailable, match="PIN"):
            await signer.sign([ONE])
        monkeypatch.setattr(pkcs11.Pkcs11Signer, "_logged_in", None)
        with pytest.raises(SignerUnavailable, match="not tried again"):
            await signer.sign([ONE])


async def test_another_key_in_its_place(hsm: SoftHsm) -> None:
    """A token that has another key after it was away gives no signature: nonces are the account's."""
    told = pkcs11_settings(hsm)
    async with opened(settings_of(told)) as (signer,):
        signer._settings = settings_of(told | {"key_label": "second"})[0]  # type: ignore[attr-defined]
        hsm.end_sessions()
        with pytest.raises(SignerUnavailable, match=f"not of {signer.address}"):
            await signer.sign([ONE])


async def test_a_signature_of_another_key_is_never_handed_out(hsm: SoftHsm, monkeypatch: pytest.MonkeyPatch) -> None:
    """What recovers to no, or to another, account is no signature."""
    async with opened(settings_of(pkcs11_settings(hsm), pkcs11_settings(hsm, key_label="second"))) as (first, second):
        monkeypatch.setattr(first, "_key", second._key)  # type: ignore[attr-defined]
        monkeypatch.setattr(first, "_reopen", lambda: None)
        with pytest.raises(SignerUnavailable):
            await first.sign([ONE])


async def test_the_event_loop_goes_on(hsm: SoftHsm, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that does not answer holds up nobody else, and is given up after a while."""
    answered = threading.Event()
    async with opened(settings_of(pkcs11_settings(hsm, request_seconds_max=2.0))) as (signer,):
        monkeypatch.setattr(signer, "_sign", lambda _: answered.wait(SECONDS_MAX))
        asked = asyncio.create_task(signer.sign([ONE]))
        turns = 0
        while not asked.done():
            await asyncio.sleep(0.01)
            turns += 1
        with pytest.raises(SignerUnavailable, match="no answer"):
            await asked
        monkeypatch.undo()
        answered.set()
        assert Account.recover_transaction((await signer.sign([ONE]))[0].raw) == signer.address
    assert turns > 5


def test_the_hash_that_is_signed() -> None:
    """What is signed is what another library signs of the same transaction."""
    account = Account.create()
    theirs = account.sign_transaction(
        {
            "type": 2, "chainId": ONE.chain_id, "nonce": ONE.nonce, "to": ONE.to, "value": ONE.value, "data": ONE.data,
            "gas": ONE.gas_limit, "maxFeePerGas": ONE.fees.max_fee, "maxPriorityFeePerGas": ONE.fees.tip, "accessList": [],
        }
    )  # fmt: skip
    ours = account.unsafe_sign_hash(Hash32(signing_hash(ONE)))
    assert (ours.r, ours.s, ours.v - 27) == (theirs.r, theirs.s, theirs.v)
