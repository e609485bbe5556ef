"""The bank's other ways to be reached: files in shared folders, and signed messages, which it makes and checks by its own code."""

from __future__ import annotations

import asyncio
import hashlib
import re
import ssl
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
import yaml
from bank_world import (
    BANK,
    GATEWAY,
    SCHEMAS,
    SEED,
    Answer,
    Certificates,
    Gateway,
    Order,
    World,
    camt_056,
    draw,
    pacs_008,
    read,
    write_settings,
)  # fmt: skip
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from lxml import etree

from bank_simulator.checks import CheckError
from bank_simulator.iso20022 import inbound
from bank_simulator.iso20022.releases import read_release
from bank_simulator.iso20022.schemas import Schemas
from bank_simulator.iso20022.signatures import Signer, require_signed
from lockstep_testkit.databases import TestDatabase

WAIT_SECONDS = 60.0


@dataclass
class Drop:
    """A bank that is open to files, and the folders as the counterparty sees them."""

    gateway: Gateway
    folder: Path
    signer: Signer
    fingerprint: str

    def put(self, name: str, body: bytes) -> None:
        part = self.folder / "out" / f".{name}.part"
        part.write_bytes(body)
        part.rename(self.folder / "out" / f"{name}.xml")

    async def answers(self, count: int) -> list[Answer]:
        async def there() -> list[Path]:
            found = sorted((self.folder / "in").glob("*.xml"))
            return found if len(found) >= count else []

        return [Answer(number, path.read_bytes()) for number, path in enumerate(await until(there))]

    def release(self, order: Order, name: str, *, key: bytes | None = None) -> bytes:
        content = (
            f'<ReleaseOrder xmlns="urn:lockstep:rail:v1"><Id>{name}</Id><CreDt>2026-11-21T12:00:00.000+00:00</CreDt><Fr>{GATEWAY}</Fr>'
            f"<To>{BANK}</To><UETR>{order.uetr}</UETR><Key>{(key or order.key).hex().upper()}</Key></ReleaseOrder>"
        )
        return self.signer.sign(content.encode())


async def until(look: Callable[[], Awaitable[list[Path]]]) -> list[Path]:
    end = asyncio.get_running_loop().time() + WAIT_SECONDS
    while not (found := await look()):
        assert asyncio.get_running_loop().time() < end
        await asyncio.sleep(0.03)
    return found


@pytest.fixture(scope="module")
def keys(certificates: Certificates) -> tuple[Signer, str, Path, Path]:
    certificate, key = certificates.issue("gateway-signing")
    fingerprint = x509.load_pem_x509_certificate(certificate.read_bytes()).fingerprint(SHA256()).hex()
    return Signer(key, certificate), fingerprint, key, certificate


@pytest_asyncio.fixture(loop_scope="session")
async def drop(
    database_for: Callable[..., Awaitable[TestDatabase]],
    certificates: Certificates,
    gateway_tls: ssl.SSLContext,
    keys: tuple[Signer, str, Path, Path],
    tmp_path: Path,
) -> AsyncIterator[Drop]:
    """Everything is signed, by one key for both sides here."""
    signer, fingerprint, key, certificate = keys
    seed = deepcopy(SEED)
    seed["counterparties"][0]["certificates"] = [fingerprint]  # type: ignore[index]
    database = await database_for("bank_simulator")
    path = write_settings(tmp_path / "bank", certificates, database.owner_url, seed)
    content = yaml.safe_load(path.read_text())
    content["signing"] = {"key_file": str(key), "certificate_file": str(certificate)}
    shared = tmp_path / "shared"
    content["file_drops"] = [
        {
            "counterparty": "bank-gateway", "inbox": str(shared / "out"), "outbox": str(shared / "in"), "done": str(tmp_path / "done"),
            "refused": str(tmp_path / "refused"),
        }
    ]  # fmt: skip
    path.write_text(yaml.safe_dump(content))
    world = World(read(path), path, certificates, gateway_tls, gateway_tls, database.owner_url)
    async with world.open() as gateway:
        yield Drop(gateway, shared, signer, fingerprint)


async def test_payment_by_files(drop: Drop) -> None:
    """A message and a release that lie in the folder are carried out; the answers lie in the other, signed, in order, and are valid."""
    order, name = Order(), draw("P")
    drop.put(name, drop.signer.sign(pacs_008([order], name)))
    (held,) = await drop.answers(1)
    assert held.statuses() == {order.uetr: ("ACFW", None)}
    drop.put(f"{name}-release", drop.release(order, f"{name}-release"))
    answers = await drop.answers(3)
    assert [answer.kind for answer in answers] == ["pacs.002", "pacs.002", "camt.054"]
    assert await drop.gateway.state(order) == "SETTLED"
    for answer in answers:
        root = etree.fromstring(answer.body)
        Schemas(SCHEMAS).require_valid(root[0])
        require_signed(root, [drop.fingerprint])
    assert list((drop.folder / "out").iterdir()) == []
    await drop.gateway.conserved()


async def test_file_again_is_a_repeat(drop: Drop) -> None:
    """The same message in a second file, marked and signed anew, changes nothing and brings the same answer."""
    order, name = Order(), draw("P")
    body = pacs_008([order], name)
    drop.put(name, drop.signer.sign(body))
    (first,) = await drop.answers(1)
    drop.put(name, drop.signer.sign(body.replace(b"</CreDt></AppHdr>", b"</CreDt><PssblDplct>true</PssblDplct></AppHdr>")))
    (again,) = (await drop.answers(2))[1:]
    assert again.body == first.body
    await drop.gateway.conserved()


@pytest.mark.parametrize(
    "what", ["unsigned", "stranger", "changed", "broken", "release unsigned", "release changed", "release of nothing"]
)
async def test_refused_files(drop: Drop, what: str, certificates: Certificates, tmp_path: Path) -> None:
    """What is not signed as agreed, was changed or is no message goes to the refused ones, and nothing comes of it."""
    order, name = Order(), draw("P")
    body = pacs_008([order], name)
    certificate, key = certificates.issue(f"stranger-{uuid.uuid4()}")
    drop.put(
        name,
        {
            "unsigned": body,
            "stranger": Signer(key, certificate).sign(body),
            "changed": drop.signer.sign(body).replace(b">100.00<", b">900.00<"),
            "broken": b"<broken",
            "release unsigned": re.sub(rb"<Sgntr>.*</Sgntr>", b"", drop.release(order, name)),
            "release changed": drop.release(order, name).replace(b"<Key>", b"<Key>00", 1),
            "release of nothing": drop.release(order, name),
        }[what],
    )

    async def refused() -> list[Path]:
        return list((tmp_path / "refused").glob(f"{name}.xml"))

    await until(refused)
    assert await drop.gateway.state(order) is None
    assert list((drop.folder / "in").iterdir()) == []


async def test_unfinished_files_are_left(drop: Drop) -> None:
    """What has no name yet is not there, and what lies there longer comes first, whatever its name."""
    orders = [Order(), Order()]
    names = ["Z" + draw("P"), "A" + draw("P")]
    (drop.folder / "out" / "half.part").write_bytes(b"<half")
    drop.put(names[0], drop.signer.sign(pacs_008([orders[0]], names[0])))
    drop.put(names[1], drop.signer.sign(pacs_008([orders[1]], names[1])))
    told: list[uuid.UUID] = []
    answers = 0
    while len(told) < len(orders):
        # The two may be told of together, or each by itself.
        told = [uetr for answer in await drop.answers(answers + 1) for uetr in answer.statuses()]
        answers += 1
    assert told == [order.uetr for order in orders]
    assert (drop.folder / "out" / "half.part").exists()


def test_signature_is_the_message_s(keys: tuple[Signer, str, Path, Path]) -> None:
    """A request with a signature that holds is read; without one, with another's, or changed, it is refused by the signature's field."""
    signer, fingerprint, _, _ = keys
    schemas, name = Schemas(SCHEMAS), draw("C")
    body = camt_056([uuid.uuid4()], name)
    signed = signer.sign(body)
    assert inbound.read(signed, schemas, [fingerprint]).content_sha256 == inbound.read(body, schemas).content_sha256
    other = hashlib.sha256(b"other").hexdigest()
    for octets, certificates in (
        (body, [fingerprint]),
        (signed, [other]),
        (signed, None),
        (signed.replace(b"DS24", b"TECH"), [fingerprint]),
        (re.sub(rb"(SignatureValue>)....", rb"\1AAAA", signed, count=1), [fingerprint]),
        (signed.replace(b"ecdsa-sha256", b"ecdsa-sha1"), [fingerprint]),
    ):
        with pytest.raises(CheckError) as refused:
            inbound.read(octets, schemas, certificates)
        assert refused.value.field == "AppHdr/Sgntr"


def test_release_form() -> None:
    """A release has exactly its fields in their forms; what is no release is left to others."""
    good = (
        f'<ReleaseOrder xmlns="urn:lockstep:rail:v1"><Id>R1</Id><CreDt>2026-11-21T12:00:00.000+00:00</CreDt><Fr>{GATEWAY}</Fr>'
        f"<To>{BANK}</To><UETR>{uuid.uuid4()}</UETR><Key>{'0A' * 32}</Key></ReleaseOrder>"
    ).encode()
    found = read_release(good, None)
    assert found is not None
    assert found.key == bytes([10] * 32)
    assert read_release(pacs_008([Order()], "P1"), None) is None
    for old, new in (
        (b"0A</Key>", b"0a</Key>"),
        (b"<Id>R1</Id>", b""),
        (b"+00:00</CreDt>", b"</CreDt>"),
        (b"<Id>R1", b"<Id>\xc3\xa9"),
    ):
        with pytest.raises(CheckError):
            read_release(good.replace(old, new), None)
