"""Settings of the event journal."""

from __future__ import annotations

from pydantic import Field

from lockstep_kit.participant.settings import ParticipantSettings
from lockstep_kit.settings import ServiceSettings


class JournalSettings(ServiceSettings):
    """Settings of the event journal."""

    participant: ParticipantSettings = Field(
        description="its half of the protocol; its key signs entries too, under a domain of its own"
    )
    readers: tuple[str, ...] = Field(
        default=("spiffe://lockstep.local/client/", "spiffe://lockstep.local/notary"),
        description="SPIFFE ids, or prefixes that end in a slash, that may read",
    )
    heartbeat_seconds: float = Field(default=15.0, gt=0, le=60, description="longest silence on WatchEntries")
    poll_seconds: float = Field(default=2.0, gt=0, le=60, description="how often it looks by itself, should a notification be lost")
