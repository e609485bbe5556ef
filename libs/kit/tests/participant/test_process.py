"""A participant as a real process: it starts from files, is killed for real, comes back, and stops when told."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import yaml

from lockstep.participant.v1 import leg_pb2, participant_service_pb2, participant_service_pb2_grpc
from lockstep_kit.errors import from_rpc
from lockstep_kit.failpoints import ENVIRONMENT
from lockstep_kit.key_files import write_signing_key
from lockstep_kit.rpc import TlsSettings, channel
from lockstep_testkit import commands
from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.factories import delivery_versus_payment, key_of
from lockstep_testkit.participants import registry_document

NAME = "dlt-gateway"
START_SECONDS_MAX = 300.0


@dataclass
class Site:
    """Files that a participant's process is started from."""

    folder: Path
    config: Path
    coordinator: TlsSettings

    @contextlib.asynccontextmanager
    async def running(self, failpoints: str = "") -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
        """The process and its port; it is ended at the end, if it has not ended by itself."""
        port_file = self.folder / "port"
        port_file.unlink(missing_ok=True)
        program = str(Path(__file__).parent / "scripted_process.py")
        environment = os.environ | {ENVIRONMENT: failpoints}
        process = await asyncio.create_subprocess_exec(sys.executable, program, "--config", str(self.config), env=environment)
        try:
            async with asyncio.timeout(START_SECONDS_MAX):
                while not port_file.exists():
                    assert process.returncode is None
                    await asyncio.sleep(0.05)
            yield process, int(port_file.read_text())
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    def stub(self, port: int) -> tuple[grpc.aio.Channel, participant_service_pb2_grpc.ParticipantServiceStub]:
        connection = channel(f"localhost:{port}", self.coordinator)
        return connection, participant_service_pb2_grpc.ParticipantServiceStub(connection)


@pytest.fixture
def site(database: TestDatabase, tls_for: Callable[[str], TlsSettings], tmp_path: Path) -> Site:
    def keys(name: str) -> list[dict[str, str]]:
        public = base64.b64encode(key_of(name).public.octets).decode()
        return [{"public_key": public, "not_before": "2020-01-01T00:00:00Z", "not_after": "2090-01-01T00:00:00Z"}]

    participants = ("bank-gateway", "dlt-gateway", "notary", "event-journal")
    registry = {
        "actors": registry_document()["actors"],
        "matrices": registry_document()["matrices"],
        "participants": [{"name": name, "keys": keys(name)} for name in participants],
    }
    (tmp_path / "registry.yaml").write_text(yaml.safe_dump(registry))
    write_signing_key(tmp_path / "key.pem", key_of(NAME))
    settings = {
        "database": database.settings.model_dump(mode="json"),
        "tls": tls_for(f"spiffe://lockstep.local/{NAME}").model_dump(mode="json"),
        "listen": {"port_file": str(tmp_path / "port"), "drain_seconds": 3.0},
        "participant": {"signing_key_file": str(tmp_path / "key.pem"), "registry_file": str(tmp_path / "registry.yaml")},
    }
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    return Site(tmp_path, config, tls_for("spiffe://lockstep.local/coordinator"))


async def test_killed_and_back(site: Site) -> None:
    """Killed right after the transaction that records a vote, it answers the repeated command with that very vote."""
    plan = delivery_versus_payment()
    request = commands.prepare_request(commands.prepare(plan, "cash"))
    async with site.running(f"{NAME}.prepare.after_commit=kill") as (process, port):
        connection, stub = site.stub(port)
        async with connection:
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Prepare(request, timeout=60)
        assert await process.wait() == -signal.SIGKILL
    async with site.running() as (_, port):
        connection, stub = site.stub(port)
        async with connection:
            known = await stub.GetLeg(participant_service_pb2.GetLegRequest(plan_id=plan.plan_id, leg_id="cash"), timeout=60)
            assert known.report.phase == leg_pb2.LEG_PHASE_PREPARED
            again = await stub.Prepare(request, timeout=60)
    assert again.answers[0].verdict == leg_pb2.COMMAND_VERDICT_DONE
    assert again.answers[0].report == known.report


async def test_stops_when_told(site: Site) -> None:
    """At SIGTERM open streams end with UNAVAILABLE, and the process ends well and soon."""
    async with site.running() as (process, port):
        connection, stub = site.stub(port)
        async with connection:
            call = stub.WatchOutcomes(participant_service_pb2.WatchOutcomesRequest(), timeout=60)
            await call.read()
            process.send_signal(signal.SIGTERM)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
        assert from_rpc(caught.value).reason == "DRAINING"
        assert await asyncio.wait_for(process.wait(), 60) == 0


async def test_readable_key_is_refused(site: Site) -> None:
    """A process whose signing key others may read does not start."""
    (site.folder / "key.pem").chmod(0o644)
    with pytest.raises(AssertionError):
        async with site.running():
            pass
