"""Settings of the notary."""

from __future__ import annotations

from pydantic import Field

from lockstep_chain.settings import ChainSettings
from lockstep_kit.participant.settings import ParticipantSettings
from lockstep_kit.plan import Anchoring
from lockstep_kit.rpc.standings import CallerSettings
from lockstep_kit.settings import ServiceSettings
from notary.witness.settings import WitnessSettings


class NotarySettings(WitnessSettings, ServiceSettings):
    """Settings of the notary."""

    participant: ParticipantSettings = Field(description="its half of the protocol")
    chain: ChainSettings = Field(description="the chain and the account that it signs with")
    registry: str = Field(description="EIP-55 address of the NotaryRegistry contract")
    readers: dict[str, CallerSettings] = Field(
        default_factory=dict,
        description="name of a client (spiffe://lockstep.local/client/<name>) -> methods of NotaryService that it may call, and whom it stands for",
    )
    anchoring: tuple[Anchoring, ...] = Field(
        default=(Anchoring.BATCHED, Anchoring.DEFERRED), description="ways of anchoring plans in batches that are promised"
    )
    batch_leaves_max: int = Field(default=1024, ge=1, le=4096, description="plans in one batch at the most")
    batch_seconds: float = Field(
        default=1.0, gt=0, le=3600, description="how long the first plan of a batch waits for others before the batch is closed"
    )
    judge_seconds: float = Field(
        default=5.0,
        gt=0,
        le=60,
        description="how often unanswered legs are looked for, should nothing wake who carries and judges them",
    )
