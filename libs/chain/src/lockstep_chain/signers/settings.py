"""What is told of an account that signs: where its key is, and what opens it. Secrets lie in files of mode 0600, never in settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lockstep_kit.forms import check_evm_address


class _AccountSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    address: str | None = Field(default=None, description="EIP-55 address that the key must have; a start with another is refused")

    @field_validator("address")
    @classmethod
    def _is_an_address(cls, address: str | None) -> str | None:
        if address is not None:
            check_evm_address(address, "")
        return address


class KeystoreSettings(_AccountSettings):
    """A key in an encrypted file."""

    kind: Literal["keystore"]
    keystore_file: Path = Field(description="the account's key: Web3 Secret Storage version 3, mode 0600")
    password_file: Path = Field(description="the keystore's password, mode 0600")


class Pkcs11Settings(_AccountSettings):
    """A key in a hardware security module. At least one of `key_label` and `key_id` is given."""

    kind: Literal["pkcs11"]
    module_file: Path = Field(description="the maker's PKCS#11 library")
    token_label: str = Field(min_length=1, max_length=32, description="label of the token that has the key (CK_TOKEN_INFO)")
    pin_file: Path = Field(description="the token's user PIN, mode 0600")
    key_label: str | None = Field(default=None, min_length=1, description="CKA_LABEL of both keys of the pair")
    key_id: str | None = Field(default=None, pattern="^([0-9a-fA-F]{2})+$", description="CKA_ID of both keys of the pair, in hex")
    request_seconds_max: float = Field(
        default=10.0, gt=0, le=60, description="longest wait for a batch of signatures, a new login among it"
    )

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        if self.key_label is None and self.key_id is None:
            raise ValueError("key_label or key_id must be given")
        return self

    @property
    def key_id_bytes(self) -> bytes | None:
        """CKA_ID."""
        return None if self.key_id is None else bytes.fromhex(self.key_id)


#: One account; `kind` says which.
SignerSettings = Annotated[KeystoreSettings | Pkcs11Settings, Field(discriminator="kind")]
