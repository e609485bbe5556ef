"""Where a process shows its metrics."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class MetricsSettings(BaseModel):
    """Where metrics are served, and how often rows are read for them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(default="127.0.0.1", description="address to listen on; it is plain HTTP, so loopback or a private network")
    port: int | None = Field(
        default=None, ge=0, le=65_535, description="port of GET /metrics; 0 picks a free one; none: not served"
    )
    port_file: Path | None = Field(default=None, description="file to write the port to once metrics are served")
    sample_seconds: float = Field(default=15.0, gt=0, description="how often rows are read; a scrape reads none")
    read_seconds_max: float = Field(default=5.0, gt=0, description="longest that one reading of rows may take; then it is left out")
