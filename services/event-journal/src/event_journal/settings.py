"""Settings of the event journal."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import Field

from lockstep.journal.v1 import journal_reader_service_pb2
from lockstep_kit.participant.settings import ParticipantSettings
from lockstep_kit.rpc.standings import CallerSettings, methods_of
from lockstep_kit.settings import ServiceSettings

SERVICE: Final = "lockstep.journal.v1.JournalReaderService"
METHODS: Final = methods_of(journal_reader_service_pb2.DESCRIPTOR, "JournalReaderService")


class JournalSettings(ServiceSettings):
    """Settings of the event journal."""

    participant: ParticipantSettings = Field(
        description="its half of the protocol; its key signs entries too, under a domain of its own"
    )
    payload_key_files: tuple[Path, ...] = Field(
        min_length=1,
        description="keys that plans' payload keys are wrapped by, 32 random bytes in base64, mode 0600; the first wraps, all open",
    )
    readers: dict[str, CallerSettings] = Field(
        default_factory=dict,
        description="name of a client (spiffe://lockstep.local/client/<name>) -> methods of JournalReaderService that it may call, and whom it stands for",
    )
    heartbeat_seconds: float = Field(default=15.0, gt=0, le=60, description="longest silence on WatchEntries")
    origin: str = Field(
        default="lockstep.local/journal",
        pattern=r"^[!-*,-~]{1,255}$",
        description="name of the log, under which its checkpoints are signed; a log keeps its name for ever",
    )
    checkpoint_seconds: float = Field(
        default=1.0, gt=0, le=3600, description="how often a checkpoint is published while there is something new"
    )
    checkpoint_entries: int = Field(default=1_024, ge=1, le=1_000_000, description="so many new entries have one published sooner")
    slow_reader_seconds: float = Field(default=30.0, gt=0, description="a reader that takes longer for one message is cut")
    poll_seconds: float = Field(default=2.0, gt=0, le=60, description="how often it looks by itself, should a notification be lost")
