"""Settings of the participant's half of the protocol."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class ParticipantSettings(BaseModel):
    """How a participant signs, whom it trusts, and how it answers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    signing_key_file: Path = Field(description="Ed25519 key that signs votes and outcomes, PKCS8 PEM, mode 0600")
    registry_file: Path = Field(description="registry of persons' and participants' keys, YAML; this participant's own copy")
    heartbeat_seconds: float = Field(
        default=5.0, gt=0, le=60, description="longest silence on WatchOutcomes; what is longer means a lost connection"
    )
    poll_seconds: float = Field(
        default=5.0, gt=0, le=60, description="how often waiting calls look by themselves, should a notification be lost"
    )
    wait_seconds_max: float = Field(
        default=10.0, ge=0, le=10, description="longest that a command's answer waits for items to leave PENDING"
    )
    watchers_max: int = Field(default=64, ge=1, le=1_000, description="open WatchOutcomes streams; more are refused")
