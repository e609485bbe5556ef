"""What the transaction machine is told: the chain, its finality, the accounts, and how patient and generous to be."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lockstep_chain.machine import ByDepth, ByTag, Finality, Limits, Policy
from lockstep_chain.ports import Tag
from lockstep_chain.signers.settings import SignerSettings
from lockstep_chain.standing import Rules


class ChainSettings(BaseModel):
    """One chain, the accounts on it. Exactly one of `finality_tag` and `finality_depth` is given."""

    model_config = ConfigDict(extra="forbid")

    rpc_urls: list[Annotated[str, Field(pattern="^https?://")]] = Field(
        min_length=1,
        max_length=16,
        repr=False,
        description="JSON-RPC endpoints of the chain, http or https; two at least, of different operators",
    )
    ws_urls: list[Annotated[str, Field(pattern="^wss?://")]] = Field(
        default=[],
        max_length=16,
        repr=False,
        description="WebSockets that announce new blocks; only a reason to look before the next poll",
    )
    single_endpoint: bool = Field(
        default=False, description="said where one endpoint is to be believed alone, and no other is named"
    )
    agreement_min: int = Field(
        default=1, ge=1, description="so many endpoints must be there and agree; all that are there must agree in any case"
    )
    lag_blocks_max: int = Field(
        default=8,
        ge=1,
        description="an endpoint that stands still further behind the others is left out; one that moves is waited for",
    )
    lag_seconds_max: float = Field(default=10.0, gt=0, le=3600, description="an endpoint whose head stays for so long stands still")
    chain_id: int = Field(gt=0, description="EIP-155 id; an endpoint of another chain is refused")
    finality_tag: Literal["finalized", "safe"] | None = Field(
        default=None, description="blocks up to the one with this tag are final; for chains that have the tag"
    )
    finality_depth: int | None = Field(
        default=None, ge=0, le=10_000, description="blocks under so many others are final; 0 where blocks are final at once"
    )
    signers: tuple[SignerSettings, ...] = Field(
        min_length=1, max_length=64, description="the accounts that sign, each with nonces of its own; replicas share them"
    )

    connect_seconds_max: float = Field(
        default=60.0, ge=0, le=3600, description="how long a starting service waits for the endpoints before it gives up"
    )
    poll_seconds: float = Field(
        default=0.15,
        gt=0,
        le=60,
        description="how often the chain is asked for a new block, when one may come and anything is in flight",
    )
    request_seconds_max: float = Field(default=5.0, gt=0, le=60, description="longest wait for an endpoint's answer")
    assign_batch_max: int = Field(default=100, ge=1, le=1000, description="transactions signed in one database transaction")
    unmined_max: int = Field(
        default=200, ge=1, le=10_000, description="transactions of one account signed and not mined at the most; nodes keep few"
    )
    resend_blocks: int = Field(default=3, ge=1, description="the same bytes are sent again after so many blocks without a receipt")
    bump_percent: int = Field(default=25, ge=10, le=300, description="what a replacement adds to both fees; nodes want 10")
    max_fee_ceiling_wei: int = Field(default=500 * 10**9, gt=0, description="maxFeePerGas is never above this")
    tip_min_wei: int = Field(default=0, ge=0, description="tip of a first attempt at the least")
    attempts_max: int = Field(default=32, ge=2, le=1000, description="attempts of one transaction at the most")
    gas_limit_max: int = Field(default=2**24, ge=21_000, description="gas of one transaction at the most (EIP-7825)")
    data_bytes_max: int = Field(default=127 * 1024, ge=0, description="calldata at the most; geth takes 128 KiB in all")
    lease_seconds: float = Field(
        default=3.0, ge=1, le=300, description="a replica that is silent so long is no longer an account's sender"
    )

    @model_validator(mode="after")
    def _enough_endpoints(self) -> Self:
        if len(set(self.rpc_urls)) < len(self.rpc_urls):
            raise ValueError("rpc_urls must differ: an endpoint that is asked twice confirms nothing")
        if (len(self.rpc_urls) == 1) != self.single_endpoint:
            raise ValueError("rpc_urls must name two endpoints at least, or one and single_endpoint must be true")
        if self.agreement_min > len(self.rpc_urls):
            raise ValueError("agreement_min must not be above the number of rpc_urls")
        return self

    @model_validator(mode="after")
    def _one_finality(self) -> Self:
        if (self.finality_tag is None) == (self.finality_depth is None):
            raise ValueError("exactly one of finality_tag and finality_depth must be given")
        return self

    @property
    def finality(self) -> Finality:
        """The chain's rule of finality."""
        return ByTag(Tag(self.finality_tag)) if self.finality_tag is not None else ByDepth(self.finality_depth or 0)

    @property
    def endpoint_rules(self) -> Rules:
        """When endpoints count, and how many must."""
        return Rules(self.agreement_min, self.lag_blocks_max, self.lag_seconds_max, pending_apart_max=self.unmined_max)

    @property
    def policy(self) -> Policy:
        """Patience and generosity."""
        return Policy(
            resend_blocks=self.resend_blocks,
            bump_percent=self.bump_percent,
            max_fee_ceiling=self.max_fee_ceiling_wei,
            tip_min=self.tip_min_wei,
            attempts_max=self.attempts_max,
        )

    @property
    def limits(self) -> Limits:
        """What is accepted."""
        return Limits(self.gas_limit_max, self.data_bytes_max)
