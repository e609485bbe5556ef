"""The client's configuration file: where the services are, what may be settled, and whose keys are at hand."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from lockstep_client.planfile import Asset, Venue
from lockstep_client.strict_yaml import read


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsPart(_Part):
    """What the client shows to the services."""

    certificate_file: Path = Field(description="the client's certificate, PEM")
    key_file: Path = Field(description="its key, PEM, mode 0600")
    ca_file: Path = Field(description="the authority that the services' certificates come from, PEM")


class AssetPart(_Part):
    """An asset by its everyday name."""

    asset: str = Field(description="ISO 4217 code or CAIP-19 id")
    scale: int = Field(description="decimal places")


class PayerPart(_Part):
    """A key that can consent to token transfers."""

    keystore_file: Path = Field(description="encrypted key, Web3 Secret Storage")
    password_file: Path = Field(description="its password")


class BankReaderPart(_Part):
    """Where a validator reads the bank's own book."""

    url: str = Field(description="base URL of the bank's inspection interface")
    token_file: Path = Field(description="bearer token")


class ClientConfiguration(_Part):
    """Everything that the `lockstep` command needs."""

    coordinator: str = Field(description="host:port of the coordinator")
    journal: str = Field(description="host:port of the event journal")
    notary: str = Field(description="host:port of the notary")
    tls: TlsPart
    registry_file: Path = Field(description="registry of persons' and participants' public keys that this client trusts")
    assets: dict[str, AssetPart] = Field(description="assets by name")
    escrow: str = Field(description="EIP-55 address of the escrow")
    chain: str = Field(description="CAIP-2 id of the chain")
    notary_registry: str = Field(description="EIP-55 address of the NotaryRegistry")
    maker_key_file: Path | None = Field(default=None, description="key that signs plans, PEM")
    payers: dict[str, PayerPart] = Field(default={}, description="EIP-55 address -> key of a token payer")
    chain_rpc_url: str | None = Field(default=None, description="JSON-RPC of a node that the validator trusts")
    bank_reader: BankReaderPart | None = Field(default=None, description="the bank's book, as the validator reads it")
    spans_url: str | None = Field(default=None, description="span store")

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
            "tls": TlsPart(**{name: _beside(path, value) for name, value in found.tls}),
            "registry_file": _beside(path, found.registry_file),
            "maker_key_file": _beside(path, found.maker_key_file) if found.maker_key_file else None,
            "payers": {
                address: PayerPart(**{name: _beside(path, value) for name, value in part}) for address, part in found.payers.items()
            },
            "bank_reader": found.bank_reader.model_copy(update={"token_file": _beside(path, found.bank_reader.token_file)})
            if found.bank_reader
            else None,
        }
    )


def _beside(path: Path, named: Path) -> Path:
    return named if named.is_absolute() else path.parent / named
