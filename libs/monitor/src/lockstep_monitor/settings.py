"""Settings of the monitor."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from lockstep_kit.rpc import TlsSettings


class MonitorSettings(BaseSettings):
    """Settings of the monitor, which reads the event journal and trusts its own registry alone."""

    model_config = SettingsConfigDict(env_prefix="LOCKSTEP_", env_nested_delimiter="__", extra="forbid")

    journal: str = Field(description="host:port of the event journal")
    notary: str = Field(default="", description="host:port of the notary, as the journal's witness; empty: it is not asked")
    tls: TlsSettings = Field(description="who it is (spiffe://lockstep.local/client/monitor), and whom it trusts")
    registry_file: Path = Field(description="its own registry of persons', participants' and the journal's keys")
    state_file: Path = Field(description="where it keeps how far it has read, and what it has raised")
    origin: str = Field(default="lockstep.local/journal", min_length=1, description="name of the journal's log")
    witness: str = Field(default="lockstep.local/notary", min_length=1, description="name of the witness's key")
    skew_seconds: float = Field(default=30.0, gt=0, description="how far clocks of honest services are apart at the most")
    silent_seconds: float = Field(default=3_600.0, gt=0, description="how long a decided plan may stand still with nobody called")
    late_seconds: float = Field(default=900.0, gt=0, description="how much older than what stands before it a decision may be")
    witness_silent_seconds: float = Field(
        default=600.0, gt=0, description="how long the witness may not have looked at the journal"
    )
    round_seconds: float = Field(default=5.0, gt=0, le=3_600, description="how often checkpoints and clocks are looked at")
    call_seconds: float = Field(default=10.0, gt=0, le=300, description="longest wait for one answer")
    watch_seconds: float = Field(default=3_600.0, gt=0, description="length of one call that watches; then it is called again")
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="lowest level that is logged")
