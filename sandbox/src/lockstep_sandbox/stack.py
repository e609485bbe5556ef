"""Everything, started together: databases, chain, bank, span store, the five services; and stopped together, whatever happens."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

from lockstep_kit.rpc import TlsSettings
from lockstep_kit.rpc.arrows import spiffe_id
from lockstep_sandbox import callers, monitoring, scene
from lockstep_sandbox.authority import Authority
from lockstep_sandbox.chain import CHAIN_ID, Chain
from lockstep_sandbox.consoles import CONSOLE
from lockstep_sandbox.databases import SandboxDatabases, ServiceLogin, begin_key_history, migrate
from lockstep_sandbox.deployment import DLT_SIGNER, NOTARY_SIGNER, SIGNERS, deploy_settlement
from lockstep_sandbox.health import serving
from lockstep_sandbox.iso_schemas import schemas
from lockstep_sandbox.monitoring import MONITOR
from lockstep_sandbox.network import Door
from lockstep_sandbox.people import PEOPLE, KeyFile, draw_keys, draw_payload_key, draw_sealing_keys, write_registry
from lockstep_sandbox.ports import LOOPBACK, free_ports, listens
from lockstep_sandbox.processes import Program, Supervisor
from lockstep_sandbox.runtime import (
    BankEndpoint,
    ClientIdentity,
    Description,
    RuntimeDirectory,
    ServiceEndpoint,
    write_secret,
)

#: The five services, by name; a service's package is its name with underscores.
SERVICES: Final = ("dlt-gateway", "bank-gateway", "notary", "event-journal", "coordinator")
PARTICIPANTS: Final = SERVICES[:4]
BANK: Final = "bank-simulator"
SPANS: Final = "spans"
CLIENT: Final = f"client/{callers.DEMONSTRATION}"
#: Every person and program of the sandbox calls as one client.
CLIENT_LIMITS: Final = {
    "calls_per_second": 2_000.0,
    "calls_burst": 4_000.0,
    "calls_at_once_max": 256,
    "streams_per_second": 100.0,
    "streams_burst": 256.0,
    "streams_max": 256,
}
#: On a machine that has other things to do as well; a program that ends is told at once.
READY_SECONDS_MAX: Final = 300.0
KEYS_VALID: Final = timedelta(days=30)
CERTIFICATE_LIFE: Final = timedelta(hours=1)


class Sandbox:
    """A whole installation on this machine. Use as an async context manager, from the main thread."""

    def __init__(
        self,
        run: RuntimeDirectory,
        *,
        block_seconds: int = 1,
        environ: Mapping[str, Mapping[str, str]] | None = None,
        sampled_ratio: float = 1.0,
        replicas: Mapping[str, int] | None = None,
        changes: Mapping[str, Mapping[str, Any]] | None = None,
        listen: Mapping[str, Any] | None = None,
        by_files: bool = False,
        certificate_life: timedelta = CERTIFICATE_LIFE,
    ) -> None:
        """Prepare a run; `environ` adds to the environment of a service, by its name; `sampled_ratio` of new traces is recorded.

        With `replicas` (service -> how many) every service is reached through a door of its own, which can be cut; see `network`. `changes` are settings of a
        service, by its name, instead of the sandbox's own; `listen` those of each service's server. With `by_files` the bank-gateway and the bank exchange
        files, and not over HTTPS.
        Certificates live for `certificate_life`, and are renewed meanwhile.
        """
        self.run = run
        self._listen = dict(listen or {"limits": {"named": {spiffe_id(CLIENT): CLIENT_LIMITS}}})
        self._changes = {name: dict(each) for name, each in (changes or {}).items()}
        self._by_files = by_files
        self._certificate_life = certificate_life
        self._sampled_ratio = sampled_ratio
        self._block_seconds = block_seconds
        self._environ = dict(environ or {})
        self._stack = AsyncExitStack()
        places = (*SERVICES, CONSOLE, "otlp", "http", "rail", "control")
        self._ports = dict(zip(places, free_ports(len(places)), strict=True))
        counts = {name: 1 if replicas is None else replicas.get(name, 1) for name in SERVICES}
        #: Replica -> its service. The first has the service's name.
        self.replicas = {name if n == 1 else f"{name}-{n}": name for name in SERVICES for n in range(1, counts[name] + 1)}
        self._listening = {name: self._ports[name] for name in SERVICES}
        #: Replica -> port of its metrics.
        self._metrics = dict(zip(self.replicas, free_ports(len(self.replicas)), strict=True))
        self.doors: dict[str, Door] = {}
        if replicas is not None:
            self._listening = dict(zip(self.replicas, free_ports(len(self.replicas)), strict=True))
            self.doors = {
                name: Door(self._ports[name], [self._listening[each] for each in self.replicas_of(name)]) for name in SERVICES
            }
        self.supervisor = Supervisor(run.path / "logs")
        self.chain = Chain(self.supervisor, run.path / "chain")
        self.databases = SandboxDatabases(run.path / "config", secrets.token_urlsafe(24))
        #: Issues the certificates of this run.
        self.authority = Authority(run.path / "certs", lifetime=certificate_life)
        self.keys: dict[str, KeyFile] = {}
        self._tls: dict[str, TlsSettings] = {}
        self._registry = self._seal_key = self._recovery_key = self.payload_key_file = run.path
        self.description: Description | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.run.withdraw()
        await asyncio.shield(self._stack.aclose())

    # -- what others need --------------------------------------------------------------------------------------------

    def address(self, service: str) -> str:
        """host:port at which a service is reached."""
        return f"{LOOPBACK}:{self._ports[service]}"

    def metrics_url(self, replica: str) -> str:
        """Where a program shows its metrics."""
        return f"http://{LOOPBACK}:{self._metrics[replica]}/metrics"

    def replicas_of(self, service: str) -> list[str]:
        """The programs that serve as a service."""
        return [each for each, name in self.replicas.items() if name == service]

    @property
    def client_configuration(self) -> Path:
        """The configuration file of the `lockstep` command."""
        return self.run.path / "client.yaml"

    @property
    def control_url(self) -> str:
        """Base URL of the bank's control and inspection interface."""
        return f"http://{LOOPBACK}:{self._ports['control']}"

    @property
    def control_token(self) -> str:
        """Bearer token of that interface."""
        return (self.run.path / "keys" / "bank-control.token").read_text()

    @property
    def spans_url(self) -> str:
        """Base URL of the span store."""
        return f"http://{LOOPBACK}:{self._ports['http']}"

    def tls(self, name: str) -> TlsSettings:
        """Certificate of a service or client."""
        return self._tls[name]

    async def change(self, service: str, **settings: Any) -> None:
        """Start a service anew with other settings; those that were changed before stay so."""
        self._changes.setdefault(service, {}).update(settings)
        for replica in self.replicas_of(service):
            await self.supervisor.stop(replica)
            await self.supervisor.start(self._service(service, replica))

    def renew_certificates(self) -> None:
        """A new certificate for everybody, in the files of the one before; nobody is started anew."""
        names = (*SERVICES, BANK, *(f"client/{each}" for each in (*callers.CLIENTS, MONITOR, CONSOLE)))
        self._tls = {name: TlsSettings.model_validate(self.authority.issue(name).settings()) for name in names}

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        run = self.run.path
        self.keys = draw_keys(run / "keys")
        self._seal_key, self._recovery_key = draw_sealing_keys(run / "keys")
        self.payload_key_file = draw_payload_key(run / "keys")
        now = datetime.now(UTC).replace(microsecond=0)
        self._keys_valid = now - timedelta(days=1), now + KEYS_VALID
        self.renew_certificates()
        self._stack.push_async_callback(_ended, asyncio.create_task(self._renewing(), name="certificates"))
        write_secret(run / "keys" / "bank-control.token", secrets.token_urlsafe(24))
        write_secret(run / "config" / "generation", "1\n")
        await self._stack.enter_async_context(self.databases)
        await self._stack.enter_async_context(self.supervisor)
        await asyncio.gather(self._start_chain(), self._make_databases(), self.supervisor.start(self._spans()))
        self._registry = self._draw_registry("registry")
        # Whatever happens from here on, services stop before what they stand on.
        self._stack.push_async_callback(self.supervisor.stop_all)
        for door in self.doors.values():
            await self._stack.enter_async_context(door)
        await self.supervisor.start(self._bank(), *(self._service(name, replica) for replica, name in self.replicas.items()))
        await self.supervisor.start(self._monitor())
        self._write_client_configuration()
        self.description = self._describe()
        self.run.publish(self.description)

    async def _renewing(self) -> None:
        """Every certificate is renewed when a third of its life is over, so that one that is late still counts."""
        while True:
            await asyncio.sleep(self._certificate_life.total_seconds() / 3)
            self.renew_certificates()

    async def _start_chain(self) -> None:
        await self._stack.enter_async_context(self.chain)
        await deploy_settlement(self.chain, [scene.BOND, scene.COIN])
        await self.chain.fund("buyer")
        await self.chain.begin_mining(self._block_seconds)
        self.chain.describe()

    async def _make_databases(self) -> None:
        for name in (*SERVICES, BANK):
            await self.databases.create(package_of(name))
        await migrate([(package_of(name), self._login(name)) for name in SERVICES])
        await begin_key_history(self._login("event-journal"), self.keys["event-journal"].private_file, *self._keys_valid)

    def _login(self, name: str) -> ServiceLogin:
        return self.databases.logins[package_of(name)]

    def _spans(self) -> Program:
        command = (
            sys.executable, "-m", "lockstep_sandbox.spans", "--database", str(self.run.path / "state" / "spans.sqlite"),
            "--otlp-port", str(self._ports["otlp"]), "--http-port", str(self._ports["http"]),
        )  # fmt: skip
        return Program(SPANS, command, ready=lambda: listens(self._ports["http"]), ready_seconds_max=READY_SECONDS_MAX)

    def _bank(self) -> Program:
        seed = self._write("bank-seed", scene.bank_seed("spiffe://lockstep.local/bank-gateway"))
        tls, login = self._tls[BANK], self._login(BANK)
        settings = {
            # The bank makes its own tables, so its role owns its database.
            "database": {"url": login.owner_url, "password_file": str(login.owner_password_file)},
            "rail": {"port": self._ports["rail"], **_files(tls)},
            "control": {"port": self._ports["control"], "token_file": str(self.run.path / "keys" / "bank-control.token")},
            "seed_file": str(seed),
            "schemas": str(schemas()),
            "file_drops": [self._file_drop()] if self._by_files else [],
        }
        command = (sys.executable, "-m", "bank_simulator", "--config", str(self._write(BANK, settings)))
        return Program(BANK, command, ready=lambda: listens(self._ports["control"]), ready_seconds_max=READY_SECONDS_MAX)

    def _file_drop(self) -> dict[str, str]:
        """What the gateway puts out the bank takes in, and the other way about."""
        shared, own = self._shared_folder(), self.run.path / "state" / "bank-files"
        folders = {"inbox": shared / "out", "outbox": shared / "in", "done": own / "done", "refused": own / "refused"}
        return {"counterparty": scene.COUNTERPARTY, **{name: str(folder) for name, folder in folders.items()}}

    def _shared_folder(self) -> Path:
        return self.run.path / "state" / "rail"

    def _service(self, name: str, replica: str) -> Program:
        tls = self._tls[name]
        settings: dict[str, Any] = {
            "database": self._login(name).settings(),
            "listen": {"port": self._listening[replica], **self._listen},
            "tls": _files(tls),
            "telemetry": {"endpoint": self.address("otlp"), "sampled_ratio": self._sampled_ratio},
            "metrics": {"port": self._metrics[replica], "sample_seconds": 2.0},
            "inspectors": callers.inspectors(),
        }
        if name in PARTICIPANTS:
            key = self.keys[name].private_file
            settings["participant"] = {"signing_key_file": str(key), "registry_file": str(self._registry)}
        settings |= getattr(self, f"_{package_of(name)}_settings")() | self._changes.get(name, {})
        command = (sys.executable, "-m", package_of(name), "--config", str(self._write(replica, settings)))
        ready = serving(f"{LOOPBACK}:{self._listening[replica]}", self._tls[CLIENT])
        return Program(replica, command, self._environ.get(name, {}), ready=ready, ready_seconds_max=READY_SECONDS_MAX)

    def _monitor(self) -> Program:
        registry = self._draw_registry("monitor-registry")
        return monitoring.program(self.run.path, self.address, self._tls[f"client/{MONITOR}"], registry)

    def _draw_registry(self, name: str) -> Path:
        tokens = [self.token_asset(terms.symbol) for terms in (scene.BOND, scene.COIN)]
        return write_registry(self.run.path / "config" / f"{name}.yaml", self.keys, *self._keys_valid, tokens=tokens)

    def _event_journal_settings(self) -> dict[str, Any]:
        return {"payload_key_files": [str(self.payload_key_file)], "readers": callers.journal_readers()}

    def _dlt_gateway_settings(self) -> dict[str, Any]:
        tokens = {self.token_asset(terms.symbol): terms.scale for terms in (scene.BOND, scene.COIN)}
        return {
            "chain": self._chain_settings(DLT_SIGNER),
            "escrow": self.chain.contracts["SettlementEscrow"],
            "tokens": tokens,
            "reversible": [self.token_asset(terms.symbol) for terms in (scene.BOND, scene.COIN) if terms.controlled],
        }

    def _notary_settings(self) -> dict[str, Any]:
        return {
            "chain": self._chain_settings(NOTARY_SIGNER),
            "registry": self.chain.contracts["NotaryRegistry"],
            "readers": callers.notary_readers(),
            # It is the journal's witness.
            "journal": self.address("event-journal"),
            "witness_seconds": 1,
            "anchor_seconds": 2,
        }

    def _bank_gateway_settings(self) -> dict[str, Any]:
        return {
            "own_bic": scene.OWN_BIC,
            "bank_bic": scene.BANK_BIC,
            "currencies": [scene.CURRENCY],
            "instruments": {"drafts_held": True},
            "calendars": {scene.CURRENCY: {"zone": scene.BANK_ZONE}},
            "rail": self._rail(),
            "readers": callers.bank_readers(),
            "schemas": str(schemas()),
        }

    def _rail(self) -> dict[str, Any]:
        if self._by_files:
            return {"files": {"folder": str(self._shared_folder()), "look_seconds": 0.05}}
        return {"http": {"url": f"https://{LOOPBACK}:{self._ports['rail']}", "together": True}}

    def _coordinator_settings(self) -> dict[str, Any]:
        return {
            "registry_file": str(self._registry),
            "generation_file": str(self.run.path / "config" / "generation"),
            "audit_directory": str(self.run.path / "audit"),
            "seal_key_files": [str(self._seal_key)],
            "recovery_public_key_file": str(self._recovery_key),
            "participants": {name: self.address(name) for name in PARTICIPANTS},
            "clients": callers.clients(),
            "operators": callers.operators(),
            "installation": {
                "sod_versions": [1, 2],
                "assets": {
                    scene.CURRENCY: 2,
                    **{self.token_asset(terms.symbol): terms.scale for terms in (scene.BOND, scene.COIN)},
                },
                "chains": [f"eip155:{CHAIN_ID}"],
                "escrows": [self.chain.contracts["SettlementEscrow"]],
                "registries": [self.chain.contracts["NotaryRegistry"]],
                "banks": [scene.BANK_BIC],
            },
        }

    def _chain_settings(self, service: str) -> dict[str, Any]:
        return {
            # The sandbox has one node: what it says is believed alone. A second address of the same node would confirm nothing.
            "rpc_urls": [self.chain.node.url],
            "single_endpoint": True,
            "chain_id": CHAIN_ID,
            # As on a QBFT network, a block is final when it is there.
            "finality_depth": 0,
            "signers": [self.chain.signer_settings(name) for name in SIGNERS[service]],
        }

    def token_asset(self, symbol: str) -> str:
        """CAIP-19 id of a token."""
        return f"eip155:{CHAIN_ID}/erc20:{self.chain.tokens[symbol]}"

    def _write(self, name: str, document: Mapping[str, Any]) -> Path:
        return write_secret(self.run.path / "config" / f"{name}.yaml", yaml.safe_dump(dict(document), sort_keys=False))

    def _write_client_configuration(self) -> None:
        seller = self.chain.write_keystore("seller")
        assets = {
            terms.symbol: {"asset": self.token_asset(terms.symbol), "scale": terms.scale} for terms in (scene.BOND, scene.COIN)
        }
        document = {
            "coordinator": self.address("coordinator"),
            "journal": self.address("event-journal"),
            "notary": self.address("notary"),
            "bank_gateway": self.address("bank-gateway"),
            "dlt_gateway": self.address("dlt-gateway"),
            "tls": _files(self._tls[CLIENT]),
            "registry_file": str(self._registry),
            "assets": {scene.CURRENCY: {"asset": scene.CURRENCY, "scale": 2}, **assets},
            "escrow": self.chain.contracts["SettlementEscrow"],
            "chain": f"eip155:{CHAIN_ID}",
            "notary_registry": self.chain.contracts["NotaryRegistry"],
            "notary_accounts": [self.chain.address(name) for name in SIGNERS[NOTARY_SIGNER]],
            "maker_key": str(self.keys["maker"].private_file),
            "payers": {
                self.chain.address("seller"): {
                    "keystore_file": str(seller.keystore_file),
                    "password_file": str(seller.password_file),
                }
            },
            "chain_rpc_url": self.chain.node.url,
            "bank_reader": {"url": self.control_url, "token_file": str(self.run.path / "keys" / "bank-control.token")},
            "spans_url": self.spans_url,
            "telemetry": {"endpoint": self.address("otlp"), "sampled_ratio": self._sampled_ratio},
        }
        write_secret(self.client_configuration, yaml.safe_dump(document, sort_keys=False))
        # The others have their own certificates and nobody's keys.
        others = {name: part for name, part in document.items() if name not in ("maker_key", "payers", "bank_reader")}
        for name in callers.CLIENTS[1:]:
            own = others | {"tls": _files(self._tls[f"client/{name}"])}
            write_secret(self.run.path / "config" / f"client-{name}.yaml", yaml.safe_dump(own, sort_keys=False))

    def _describe(self) -> Description:
        tls = self._tls[CLIENT]
        return Description(
            run=self.run.path.name,
            supervisor_pid=os.getpid(),
            services={
                name: ServiceEndpoint(
                    address=self.address(name), spiffe_id=f"spiffe://lockstep.local/{name}", metrics_url=self.metrics_url(name)
                )
                for name in SERVICES
            },
            client=ClientIdentity(authority_file=tls.ca_file, certificate_file=tls.certificate_file, private_key_file=tls.key_file),
            registry_file=self._registry,
            key_files={person.actor_id: self.keys[person.actor_id].private_file for person in PEOPLE},
            chain=self.chain.describe(),
            bank=BankEndpoint(rail_url=f"https://{LOOPBACK}:{self._ports['rail']}", control_url=self.control_url),
            spans_url=self.spans_url,
            databases={name: login.url for name, login in self.databases.logins.items()},
        )

    def plan_file(self, name: str, document: Mapping[str, Any]) -> Path:
        """Write a plan file; JSON is YAML."""
        path = self.run.path / "state" / f"{name}.yaml"
        path.write_text(json.dumps(document, indent=2) + "\n")
        return path


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def package_of(service: str) -> str:
    """Python package, database and role of a service."""
    return service.replace("-", "_")


def _files(tls: TlsSettings) -> dict[str, str]:
    return {name: str(path) for name, path in tls}
