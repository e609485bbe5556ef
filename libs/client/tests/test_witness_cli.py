"""`lockstep witness status`, over a real mTLS connection to a notary that answers what a test puts down."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from lockstep.notary.v1 import anchor_pb2, notary_service_pb2_grpc
from lockstep.notary.v1 import notary_service_pb2 as messages
from lockstep_kit import merkle, notes
from lockstep_kit.ids import sha256
from lockstep_kit.notes import Checkpoint
from lockstep_kit.rpc import TlsSettings
from lockstep_kit.signing import SigningKey

JOURNAL, NOTARY, MALLORY = (SigningKey(sha256(name)) for name in (b"event-journal", b"notary", b"mallory"))
ROOT = merkle.root([merkle.leaf_hash(b"x")])


class Notary(notary_service_pb2_grpc.NotaryServiceServicer):
    """Says what it is told to; the other methods are as generated, unimplemented."""

    GetEscalationRecords = notary_service_pb2_grpc.NotaryServiceServicer.GetEscalationRecords
    GetNotarisation = notary_service_pb2_grpc.NotaryServiceServicer.GetNotarisation
    GetWitnessedCheckpoint = notary_service_pb2_grpc.NotaryServiceServicer.GetWitnessedCheckpoint
    RecordEscalations = notary_service_pb2_grpc.NotaryServiceServicer.RecordEscalations

    def __init__(self) -> None:
        self.status = messages.GetWitnessStatusResponse()
        self.port = 0

    async def GetWitnessStatus(self, request: Any, context: Any) -> messages.GetWitnessStatusResponse:  # noqa: N802 - the protocol's name
        del request, context
        return self.status


@pytest.fixture
async def notary(tls: TlsSettings) -> AsyncIterator[Notary]:
    """A running one."""
    served, server = Notary(), grpc.aio.server()
    pair = (tls.key_file.read_bytes(), tls.certificate_file.read_bytes())
    credentials = grpc.ssl_server_credentials([pair], tls.ca_file.read_bytes(), require_client_auth=True)
    notary_service_pb2_grpc.add_NotaryServiceServicer_to_server(served, server)
    served.port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    yield served
    await server.stop(None)


def witnessed(*, log: SigningKey = JOURNAL, witness: SigningKey = NOTARY, size: int = 1) -> anchor_pb2.WitnessedCheckpoint:
    """A checkpoint that was cosigned a minute ago."""
    at = datetime.now(UTC) - timedelta(minutes=1)
    signed = notes.sign(Checkpoint("lockstep.local/journal", 1, ROOT), log)
    note = notes.cosign(signed, "lockstep.local/notary", witness, at).note
    message = anchor_pb2.WitnessedCheckpoint(signed_note=note, tree_size=size, root_hash=ROOT)
    message.witnessed_at.FromDatetime(at)
    return message


async def status(folder: Path, notary: Notary, tls: TlsSettings, *more: str) -> tuple[int, str, str]:
    """The command's exit code, output and errors."""

    def key(of: SigningKey) -> dict[str, str]:
        public = base64.b64encode(of.public.octets).decode()
        return {"public_key": public, "not_before": "2020-01-01T00:00:00Z", "not_after": "2100-01-01T00:00:00Z"}

    participants = [{"name": "event-journal", "keys": [key(JOURNAL)]}, {"name": "notary", "keys": [key(NOTARY)]}]
    (folder / "registry.yaml").write_text(yaml.safe_dump({"actors": [], "participants": participants}))
    document = {
        "coordinator": "127.0.0.1:1",
        "journal": "127.0.0.1:1",
        "notary": f"localhost:{notary.port}",
        "tls": {name: str(path) for name, path in tls},
        "registry_file": "registry.yaml",
        "assets": {},
        "escrow": "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
        "chain": "eip155:138",
        "notary_registry": "0x52908400098527886E0F7030069857D2E4169EE7",
    }
    (folder / "client.yaml").write_text(yaml.safe_dump(document))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from lockstep_client.cli import main; main()", "witness", "status", "--config", str(folder / "client.yaml"),
        *more, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 300)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_nothing_yet(tmp_path: Path, notary: Notary, tls: TlsSettings) -> None:
    """A notary that has witnessed nothing says so."""
    assert await status(tmp_path, notary, tls) == (0, "nothing witnessed yet\n", "")


async def test_what_was_witnessed(tmp_path: Path, notary: Notary, tls: TlsSettings) -> None:
    """The last checkpoint is shown with its age, once its signatures have been checked here."""
    notary.status.last.CopyFrom(witnessed())
    notary.status.looked_at.FromDatetime(datetime.now(UTC) - timedelta(seconds=3))
    code, out, err = await status(tmp_path, notary, tls, "--json")
    assert (code, err) == (0, "")
    last = json.loads(out)["last"]
    assert (last["tree_size"], last["root_hash"], last["findings"], last["anchored"]) == (1, ROOT.hex(), [], False)
    assert 60 <= last["age_seconds"] < 600
    code, out, _ = await status(tmp_path, notary, tls)
    assert code == 0
    assert "1 leaves" in out
    assert ROOT.hex() in out


@pytest.mark.parametrize(
    ("last", "finding"),
    [
        (witnessed(log=MALLORY), "the journal has signed"),
        (witnessed(witness=MALLORY), "has cosigned"),
        (witnessed(size=2), "another tree"),
        (anchor_pb2.WitnessedCheckpoint(signed_note=b"no note"), "no signed checkpoint"),
    ],
)
async def test_what_does_not_verify(
    tmp_path: Path, notary: Notary, tls: TlsSettings, last: anchor_pb2.WitnessedCheckpoint, finding: str
) -> None:
    """The notary's word is not taken: a note that its keys have not signed is named, and the command exits with 1."""
    notary.status.last.CopyFrom(last)
    code, out, err = await status(tmp_path, notary, tls)
    assert code == 1
    assert finding in out
    assert err.startswith("WITNESS_INVALID")


async def test_an_alarm(tmp_path: Path, notary: Notary, tls: TlsSettings) -> None:
    """An alarm is told, with both notes for programs, and the command exits with 1; one that was looked at is history."""
    alarm = messages.WitnessAlarm(rule="LOG_SPLIT", message="two roots", refused_note=b"refused", cosigned_note=b"cosigned")
    notary.status.last.CopyFrom(witnessed())
    notary.status.alarm.CopyFrom(alarm)
    code, out, err = await status(tmp_path, notary, tls, "--json")
    assert code == 1
    assert json.loads(err)["error"]["reason"] == "WITNESS_ALARM"
    told = json.loads(out)["alarm"]
    assert (told["rule"], told["refused_note"], told["cosigned_note"]) == ("LOG_SPLIT", "refused", "cosigned")
    code, out, err = await status(tmp_path, notary, tls)
    assert "two roots" in out
    notary.status.ClearField("alarm")
    alarm.finding, alarm.followed = "put back", True
    alarm.acknowledged_at.GetCurrentTime()
    notary.status.acknowledged.append(alarm)
    code, out, err = await status(tmp_path, notary, tls)
    assert (code, err) == (0, "")
    assert "put back" in out
