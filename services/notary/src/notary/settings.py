"""Settings of the notary."""

from __future__ import annotations

from pydantic import Field

from lockstep_chain.settings import ChainSettings
from lockstep_kit.participant.settings import ParticipantSettings
from lockstep_kit.settings import ServiceSettings


class NotarySettings(ServiceSettings):
    """Settings of the notary."""

    participant: ParticipantSettings = Field(description="its half of the protocol")
    chain: ChainSettings = Field(description="the chain and the account that it signs with")
    registry: str = Field(description="EIP-55 address of the NotaryRegistry contract")
    readers: tuple[str, ...] = Field(
        default=("spiffe://lockstep.local/client/",),
        description="SPIFFE ids, or prefixes that end in a slash, that may read what is on chain",
    )
    judge_seconds: float = Field(
        default=1.0, gt=0, le=60, description="how often unanswered legs are judged, should nothing wake the judge"
    )
