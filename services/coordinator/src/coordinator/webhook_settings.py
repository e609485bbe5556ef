"""Settings of webhooks and of how long they are waited for."""

from __future__ import annotations

import base64
import binascii
import ipaddress
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from coordinator.notices import NoticeKind
from coordinator.webhooks import Patience, Webhook, forbidden
from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.outbox import PUT_OFF_MAX
from lockstep_kit.secret_files import read_secret_file

_SECRET_PREFIX: Final = "whsec_"
_SECRET_BYTES: Final = (24, 64)
_FILE_BYTES_MAX: Final = 1_024


class WebhookSettings(BaseModel):
    """A receiver of notices."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern="^[a-z][a-z0-9-]{0,47}$", description="for people; what waits for it is kept under this name")
    url: str = Field(description="https; http and this machine's own addresses only where `notices.allow_loopback` says so")
    secret_files: tuple[Path, ...] = Field(
        min_length=1,
        max_length=4,
        description="secrets as Standard Webhooks writes them (whsec_ and base64 of 24 to 64 bytes), mode 0600; every notice is signed with each",
    )
    kinds: tuple[NoticeKind, ...] = Field(default=tuple(NoticeKind), min_length=1, description="kinds of notices that it gets")
    ca_file: Path | None = Field(
        default=None, description="authorities that its certificate may be of, PEM; the system's when absent"
    )

    def check(self, field: str, *, allow_loopback: bool) -> None:
        """The address is one that a receiver may have. Names are checked again whenever they are resolved.

        Raises:
            FieldInvalid: it is not.
        """
        parts = urlsplit(self.url)
        require(parts.scheme == "https" or (allow_loopback and parts.scheme == "http"), field, "must be an https address")
        require(bool(parts.hostname) and parts.username is None and not parts.fragment, field, "must name a host, and no user")
        try:
            literal = forbidden(str(ipaddress.ip_address(parts.hostname or "")))
        except ValueError:
            literal = False
        require(allow_loopback or not literal, field, "must not be an address of this machine or network alone")

    def read(self) -> Webhook:
        """The webhook, with its secrets.

        Raises:
            FieldInvalid: a file holds no secret.
            OSError: a file cannot be read.
        """
        return Webhook(self.name, self.url, tuple(read_secret(each) for each in self.secret_files), self.ca_file)


class NoticeSettings(BaseModel):
    """How notices are told. Seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(default="urn:lockstep:coordinator", min_length=1, description="URI-reference: `source` of every CloudEvent")
    allow_loopback: bool = Field(default=False, description="webhooks may be on this machine and without TLS: for sandboxes only")
    answer_seconds: float = Field(default=10.0, gt=0, le=60, description="longest wait for one answer")
    pause_seconds_max: float = Field(
        default=3_600.0, gt=0, le=PUT_OFF_MAX.total_seconds(), description="longest pause between two tries"
    )
    give_up_seconds: float = Field(default=259_200.0, gt=0, description="a notice that is older becomes a dead letter")
    sweep_seconds: float = Field(default=60.0, gt=0, description="how often what was taken long ago is forgotten")

    def patience(self) -> Patience:
        """How long webhooks are waited for."""
        return Patience(
            timedelta(seconds=self.answer_seconds),
            timedelta(seconds=self.pause_seconds_max),
            timedelta(seconds=self.give_up_seconds),
        )


def read_secret(path: Path) -> bytes:
    """The secret in a file.

    Raises:
        FieldInvalid: others may read the file, or it holds no secret. The field is the path; what the file holds is not told.
        OSError: the file cannot be read.
    """
    text = read_secret_file(path, _FILE_BYTES_MAX).decode("ascii", errors="replace").strip()
    least, most = _SECRET_BYTES
    try:
        secret = base64.b64decode(text.removeprefix(_SECRET_PREFIX), validate=True) if text.startswith(_SECRET_PREFIX) else b""
    except (binascii.Error, ValueError):
        secret = b""
    if not least <= len(secret) <= most:
        raise FieldInvalid(str(path), f"must hold {_SECRET_PREFIX} and the base64 of {least} to {most} bytes")
    return secret
