"""The client's configuration file: where the services are, what may be settled, and whose keys are at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from lockstep_client.planfile import Asset, Venue
from lockstep_client.signers.naming import beside
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.rpc import TlsSettings
from lockstep_kit.strict_yaml import read
from lockstep_kit.telemetry import TelemetrySettings

ENVIRONMENT: Final = "LOCKSTEP_CONFIG"
#: Where `make up` leaves the configuration of the running sandbox.
SANDBOX: Final = Path(".sandbox/current/client.yaml")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AssetPart(_Part):
    """An asset by its everyday name."""

    asset: str = Field(description="ISO 4217 code or CAIP-19 id")
    scale: int = Field(description="decimal places")


class PayerPart(_Part):
    """A key that can consent to token transfers."""

    keystore_file: Path = Field(description="encrypted key, Web3 Secret Storage")
    password_file: Path = Field(description="its password")
    permit: bool = Field(
        default=False,
        description="sign an allowance with each plan (EIP-2612), which needs chain_rpc_url; else the escrow must have been allowed before",
    )


class BankReaderPart(_Part):
    """Where a validator reads the bank's own book."""

    url: str = Field(description="base URL of the bank's inspection interface")
    token_file: Path = Field(description="bearer token")


class ClientConfiguration(_Part):
    """Everything that the `lockstep` command needs."""

    coordinator: str = Field(description="host:port of the coordinator")
    journal: str = Field(description="host:port of the event journal")
    notary: str = Field(description="host:port of the notary")
    bank_gateway: str | None = Field(
        default=None, description="host:port of the bank-gateway, for `lockstep reconcile` and `lockstep doctor`"
    )
    dlt_gateway: str | None = Field(default=None, description="host:port of the dlt-gateway, for `lockstep doctor`")
    tls: TlsSettings = Field(description="what the client shows to the services, and whom it trusts")
    registry_file: Path = Field(description="registry of persons' and participants' public keys that this client trusts")
    assets: dict[str, AssetPart] = Field(description="assets by name")
    escrow: str = Field(description="EIP-55 address of the escrow")
    chain: str = Field(description="CAIP-2 id of the chain")
    notary_registry: str = Field(description="EIP-55 address of the NotaryRegistry")
    notary_accounts: list[str] = Field(
        default=[], description="addresses of the accounts that the registry takes roots from; none: not known"
    )
    maker_key: str | None = Field(
        default=None, description="key that signs plans: a file, PEM; ssh-agent:FINGERPRINT-or-comment; pkcs11:… (RFC 7512)"
    )
    payers: dict[str, PayerPart] = Field(default={}, description="EIP-55 address -> key of a token payer")
    chain_rpc_url: str | None = Field(default=None, description="JSON-RPC of a node that the validator, or a payer, trusts")
    bank_reader: BankReaderPart | None = Field(default=None, description="the bank's book, as the validator reads it")
    spans_url: str | None = Field(default=None, description="span store, for `lockstep trace`")
    telemetry: TelemetrySettings | None = Field(default=None, description="where the client's own spans go; none: nowhere")
    state_directory: Path = Field(default=Path("agent"), description="where the validator agent keeps the requests that it signed")

    @property
    def venue(self) -> Venue:
        """Where plans are settled."""
        return Venue(
            assets={name: Asset(part.asset, part.scale) for name, part in self.assets.items()},
            escrow=self.escrow,
            chain=self.chain,
            registry=self.notary_registry,
        )


def read_configuration(path: Path) -> ClientConfiguration:
    """The configuration in a file; relative paths in it are relative to the file.

    Raises:
        FieldInvalid: the file is not there, or a field breaks a rule.
    """
    found = read(path, ClientConfiguration)
    return found.model_copy(
        update={
            "tls": TlsSettings(**{name: _beside(path, value) for name, value in found.tls}),
            "state_directory": _beside(path, found.state_directory),
            "registry_file": _beside(path, found.registry_file),
            "maker_key": beside(found.maker_key, path.parent) if found.maker_key else None,
            "payers": {
                address: part.model_copy(
                    update={
                        "keystore_file": _beside(path, part.keystore_file),
                        "password_file": _beside(path, part.password_file),
                    }
                )
                for address, part in found.payers.items()
            },
            "bank_reader": found.bank_reader.model_copy(update={"token_file": _beside(path, found.bank_reader.token_file)})
            if found.bank_reader
            else None,
        }
    )


def find_configuration(named: Path | None, environment: str | None, working_directory: Path) -> Path:
    """The configuration file: the one that is named, else the environment's, else the running sandbox's, searched upwards.

    Raises:
        FieldInvalid: there is none.
    """
    if named is not None:
        return named
    if environment:
        return Path(environment)
    for directory in (working_directory, *working_directory.parents):
        if (directory / SANDBOX).is_file():
            return directory / SANDBOX
    raise FieldInvalid(
        "--config", f"must name a configuration file, since neither ${ENVIRONMENT} nor {SANDBOX} does; `make up` makes one"
    )


def _beside(path: Path, named: Path) -> Path:
    return named if named.is_absolute() else path.parent / named
