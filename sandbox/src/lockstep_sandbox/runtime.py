"""The folder of one run, and the file that describes what runs.

.sandbox/current -> run-20260101T120000-4f2a91c7    the run that `make up` left, if one runs
.sandbox/run-…/sandbox.json                          endpoints, certificates, keys: see `Description`; mode 0600
.sandbox/run-…/{logs,keys,certs,chain,config,state}  what its programs write and read; mode 0700
"""

from __future__ import annotations

import contextlib
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

SUBFOLDERS = ("audit", "logs", "keys", "certs", "chain", "config", "state")
CURRENT = "current"
DESCRIPTION = "sandbox.json"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServiceEndpoint(_Part):
    """Where a service listens and who it is."""

    address: Annotated[str, Field(description="host:port of its gRPC server")]
    spiffe_id: Annotated[str, Field(description="identity in its certificate")]
    metrics_url: Annotated[str | None, Field(description="its Prometheus page, if it has one")] = None


class ClientIdentity(_Part):
    """What a client shows to the services."""

    authority_file: Annotated[Path, Field(description="certificate of the sandbox's authority, PEM")]
    certificate_file: Annotated[Path, Field(description="the client's certificate, PEM")]
    private_key_file: Annotated[Path, Field(description="its key, PEM, mode 0600")]


class ChainEndpoint(_Part):
    """Where the chain is and what is deployed on it."""

    rpc_url: str
    chain_id: int
    contracts: Annotated[dict[str, str], Field(description="name of a contract -> its address, checksummed")]
    tokens: Annotated[dict[str, str], Field(description="symbol of a token -> its address, checksummed")]
    accounts: Annotated[dict[str, str], Field(description="name of an account -> its address, checksummed")]


class BankEndpoint(_Part):
    """Where the bank is."""

    rail_url: Annotated[str, Field(description="where messages are exchanged")]
    control_url: Annotated[str, Field(description="where it is told to misbehave, and its books are read")]


class Description(_Part):
    """Everything that the `lockstep` command, a test or a person needs to reach a running sandbox."""

    run: Annotated[str, Field(description="name of the run's folder")]
    supervisor_pid: Annotated[int, Field(description="process whose end stops everything")]
    services: dict[str, ServiceEndpoint]
    client: ClientIdentity
    registry_file: Annotated[Path, Field(description="registry of persons' and participants' public keys")]
    key_files: Annotated[dict[str, Path], Field(description="person -> private key, PEM, mode 0600")]
    chain: ChainEndpoint
    bank: BankEndpoint
    spans_url: Annotated[str, Field(description="span store: GET /traces?plan_id=…, GET /traces/{trace_id}")]
    databases: Annotated[dict[str, str], Field(description="service -> URL without password")] = {}
    extra: Annotated[dict[str, Any], Field(description="what only one scenario needs")] = {}


class RuntimeDirectory:
    """The folder of one run; only its owner may look into it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, base: Path) -> RuntimeDirectory:
        """Makes a new folder below `base` (usually .sandbox)."""
        base.mkdir(parents=True, exist_ok=True)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        path = base.absolute() / f"run-{stamp}-{secrets.token_hex(4)}"
        path.mkdir(mode=0o700)
        for name in SUBFOLDERS:
            (path / name).mkdir(mode=0o700)
        return cls(path)

    @classmethod
    def current(cls, base: Path) -> RuntimeDirectory | None:
        """The run that was published last and whose supervisor still lives."""
        found = cls((base / CURRENT).resolve())
        try:
            os.kill(found.read_description().supervisor_pid, 0)
        except (OSError, ValueError):
            return None
        return found

    def publish(self, description: Description) -> Path:
        """Writes sandbox.json and makes this run the current one."""
        written = self.write_secret(DESCRIPTION, description.model_dump_json(indent=2) + "\n")
        fresh = self.path.parent / f".{CURRENT}-{self.path.name}"
        fresh.symlink_to(self.path.name)
        fresh.replace(self.path.parent / CURRENT)
        return written

    def withdraw(self) -> None:
        """Takes this run back from being the current one, if it is."""
        link = self.path.parent / CURRENT
        with contextlib.suppress(FileNotFoundError):
            if link.readlink().name == self.path.name:
                link.unlink()

    def read_description(self) -> Description:
        """What was published.

        Raises:
            FileNotFoundError: Nothing was.
            ValueError: The file is not a description.
        """
        return Description.model_validate_json((self.path / DESCRIPTION).read_text())

    def write_secret(self, name: str, content: str | bytes) -> Path:
        """Writes a file that only its owner may read, whole or not at all; returns its path."""
        return write_secret(self.path / name, content)


def write_secret(path: Path, content: str | bytes) -> Path:
    """Writes a file with mode 0600 from its first moment on, whole or not at all; returns its path."""
    octets = content.encode() if isinstance(content, str) else content
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(octets)
    part.replace(path)
    return path
