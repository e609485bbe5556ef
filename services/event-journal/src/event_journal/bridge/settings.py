"""Settings of the bridge."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from lockstep_kit.rpc import TlsSettings

_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


class NatsSettings(BaseModel):
    """The NATS servers, and who the bridge is there."""

    model_config = ConfigDict(extra="forbid")

    servers: tuple[str, ...] = Field(min_length=1, description="nats://host:port, of one cluster")
    tls: TlsSettings | None = Field(
        default=None,
        description="certificate, which the servers know it by, and authority; none only for servers on this machine",
    )
    stream: str = Field(
        default="LOCKSTEP_JOURNAL", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="stream; nobody else writes to it"
    )
    subject_prefix: str = Field(
        default="lockstep.journal",
        pattern=r"^[a-z0-9_-]+(\.[a-z0-9_-]+){0,7}$",
        description="an entry's subject is this and its type",
    )
    create: bool = Field(default=True, description="whether the stream is made when it is not there")
    replicas: int = Field(default=1, ge=1, le=5, description="copies of a stream that is made")
    duplicate_window_seconds: float = Field(
        default=120.0, ge=1, description="how long the stream must know message ids; a stream that is made does so for as long"
    )

    @model_validator(mode="after")
    def _secured(self) -> NatsSettings:
        for server in self.servers:
            parts = urlsplit(server)
            if parts.scheme not in ("nats", "tls") or parts.hostname is None or parts.username or parts.password:
                raise ValueError("must name servers as nats://host:port, without a password")
            if self.tls is None and parts.hostname not in _LOOPBACK:
                raise ValueError("must have tls for servers that are not on this machine")
        return self


class BridgeSettings(BaseSettings):
    """Settings of the bridge from the event journal to NATS JetStream."""

    model_config = SettingsConfigDict(env_prefix="LOCKSTEP_", env_nested_delimiter="__", extra="forbid")

    journal: str = Field(description="host:port of the event journal")
    tls: TlsSettings = Field(description="who it is to the journal, which must name it among its readers, and whom it trusts")
    nats: NatsSettings = Field(description="where entries are published")
    in_flight_max: int = Field(default=256, ge=1, le=4_096, description="messages that may be sent and not yet acknowledged")
    acknowledge_seconds: float = Field(
        default=10.0, gt=0, description="longest wait for an acknowledgement; then the stream is asked"
    )
    silence_seconds: float = Field(
        default=60.0, gt=0, description="longest silence of the journal, which sends heartbeats; then it is called again"
    )
    watch_seconds: float = Field(default=3_600.0, gt=0, description="length of one call of the journal; then it is called again")
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="lowest level that is logged")
