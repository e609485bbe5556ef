"""What the sandbox puts on its chain: the escrow, the notary's registry, tokens with their holders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lockstep_contracts.escrow import encode_escrow_deployment
from lockstep_contracts.notary import encode_registry_deployment
from lockstep_contracts.roles import encode_grant_operator
from lockstep_contracts.token import encode_add_agent, encode_approve, encode_mint, encode_token_deployment
from lockstep_sandbox.chain import DEPLOYER, Chain

#: Whose signature each role of the contracts needs.
DLT_SIGNER = "dlt-gateway"
NOTARY_SIGNER = "notary"
#: Service -> its accounts; each has the operator's role.
SIGNERS: Mapping[str, tuple[str, ...]] = {each: (each, f"{each}-2") for each in (DLT_SIGNER, NOTARY_SIGNER)}
ARBITER = "arbiter"
PAUSER = "pauser"
#: The largest allowance an ERC-20 knows; it does not shrink.
UNLIMITED = 2**256 - 1


@dataclass(frozen=True, slots=True)
class TokenTerms:
    """A token to be made."""

    symbol: str
    name: str
    #: Decimal places of its minor unit.
    scale: int
    #: Holder -> minor units minted to it.
    minted: Mapping[str, int]
    #: Holders that let the escrow take their tokens, when they also sign for it.
    allowing: Sequence[str] = ()
    #: Whether the escrow is one of its controllers (ERC-3643 agents), so that what it paid can be reversed.
    controlled: bool = False


async def deploy_settlement(chain: Chain, tokens: Sequence[TokenTerms]) -> None:
    """Deploys everything, mints, and lets the escrow take tokens; draws an account for each signer and holder.

    Afterwards `chain.contracts` holds SettlementEscrow and NotaryRegistry, `chain.tokens` the tokens by symbol.
    """
    holders = dict.fromkeys(holder for token in tokens for holder in token.minted)
    await chain.fund(*(name for names in SIGNERS.values() for name in names), ARBITER, PAUSER, *holders)
    admin = chain.address(DEPLOYER)
    operator, arbiter, pauser = (chain.address(name) for name in (DLT_SIGNER, ARBITER, PAUSER))
    escrow = await chain.deploy(encode_escrow_deployment(admin=admin, operator=operator, arbiter=arbiter, pauser=pauser))
    registry = await chain.deploy(encode_registry_deployment(admin=admin, operator=chain.address(NOTARY_SIGNER)))
    chain.contracts.update({"SettlementEscrow": escrow, "NotaryRegistry": registry})
    for contract, service in ((escrow, DLT_SIGNER), (registry, NOTARY_SIGNER)):
        for name in SIGNERS[service][1:]:
            await chain.transact(contract, encode_grant_operator(chain.address(name)))
    for terms in tokens:
        code = encode_token_deployment(name=terms.name, symbol=terms.symbol, decimals=terms.scale, owner=admin)
        token = chain.tokens[terms.symbol] = await chain.deploy(code)
        for holder, minor_units in terms.minted.items():
            await chain.transact(token, encode_mint(chain.address(holder), minor_units))
        for holder in terms.allowing:
            await chain.transact(token, encode_approve(escrow, UNLIMITED), by=holder)
        if terms.controlled:
            await chain.transact(token, encode_add_agent(escrow))
