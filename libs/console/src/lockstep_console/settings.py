"""Settings of the console."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic_settings import BaseSettings, SettingsConfigDict

from lockstep_kit.rpc import TlsSettings

#: A name as a browser writes it in `Host`: lower case, with the port unless it is the scheme's own.
HostName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9.\-\[\]:]{1,255}$")]


class ConsoleListen(BaseModel):
    """Where browsers reach the console."""

    model_config = ConfigDict(extra="forbid")

    host: str = Field(
        default="127.0.0.1", min_length=1, description="address to listen on; one that is not loopback takes a token_file"
    )
    port: int = Field(default=0, ge=0, le=65_535, description="port; 0: a free one, which the log names")
    names: list[HostName] = Field(
        default=[],
        description="names beside the address by which browsers reach it, as in their Host header: console.example, console.example:8443",
    )
    token_file: Path | None = Field(
        default=None,
        description="file with the token that a browser must show, 32 characters or more; none: on loopback nobody is asked",
    )
    streams_max: int = Field(default=32, ge=1, le=60, description="browsers' live streams at the most, boards and plans together")
    drain_seconds: float = Field(default=5.0, gt=0, le=60, description="longest wait for answers under way when it is told to stop")


class ConsoleSettings(BaseSettings):
    """Settings of the console, which reads as an auditor and trusts its own registry alone."""

    model_config = SettingsConfigDict(env_prefix="LOCKSTEP_", env_nested_delimiter="__", extra="forbid")

    coordinator: str = Field(description="host:port of the coordinator")
    journal: str = Field(description="host:port of the event journal")
    tls: TlsSettings = Field(description="who it is (spiffe://lockstep.local/client/console), and whom it trusts")
    registry_file: Path = Field(description="the registry of persons' and participants' keys that it verifies with")
    listen: ConsoleListen = Field(default_factory=ConsoleListen, description="where browsers reach it")
    plans_max: int = Field(default=1_000, ge=50, le=10_000, description="plans on the board at the most, the newest")
    look_seconds: float = Field(
        default=1.0, gt=0, le=10, description="how long changes of plans are gathered while somebody watches the board"
    )
    heartbeat_seconds: float = Field(default=5.0, gt=0, le=60, description="longest silence of a stream to a browser")
    call_seconds: float = Field(default=10.0, gt=0, le=300, description="longest wait for one answer of a service")
    calls_at_once_max: int = Field(default=8, ge=1, le=16, description="calls to a service at the same time")
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="lowest level that is logged")
