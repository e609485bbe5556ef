"""Settings of the dlt-gateway."""

from __future__ import annotations

from pydantic import Field

from lockstep_chain.settings import ChainSettings
from lockstep_kit.participant.settings import ParticipantSettings
from lockstep_kit.settings import ServiceSettings


class DltGatewaySettings(ServiceSettings):
    """Settings of the dlt-gateway."""

    participant: ParticipantSettings = Field(description="its half of the protocol")
    chain: ChainSettings = Field(description="the chain and the account that it signs with")
    escrow: str = Field(description="EIP-55 address of the SettlementEscrow contract")
    tokens: dict[str, int] = Field(description="tokens that are served: CAIP-19 id -> decimal places")
    reversible: list[str] = Field(
        default=[],
        description="those of them whose owner made the escrow a controller (ERC-3643 agent): their executed legs can be reversed",
    )
    judge_seconds: float = Field(
        default=5.0,
        gt=0,
        le=60,
        description="how often unanswered legs are looked for, should nothing wake who carries and judges them",
    )
