"""Settings of the witness."""

from __future__ import annotations

from pydantic import BaseModel, Field


class WitnessSettings(BaseModel):
    """Whose log is witnessed, and how."""

    journal: str | None = Field(
        default=None, description="host:port of the event journal, whose log is witnessed; none: nothing is witnessed"
    )
    journal_origin: str = Field(default="lockstep.local/journal", description="name of the journal's log")
    journal_participant: str = Field(default="event-journal", description="participant in the registry whose keys sign the log")
    witness_name: str = Field(default="lockstep.local/notary", description="name of the key in cosignatures")
    witness_seconds: float = Field(
        default=5.0, gt=0, le=3_600, description="how often the journal's newest checkpoint is looked at"
    )
    anchor_seconds: float = Field(
        default=60.0, ge=0, le=86_400, description="between two anchors of checkpoints; only the newest is anchored"
    )
    silence_seconds: float = Field(
        default=300.0, gt=0, le=86_400, description="a journal that does not answer for longer is reported as an error"
    )
    witness_call_seconds: float = Field(default=5.0, gt=0, le=60, description="longest call to the journal")
