"""Making plans: from a file to a signed request, and the payers' consent to what the coordinator answered."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from lockstep.coordinator.v1.settlement_pb2 import Plan
from lockstep_client.client import LockstepClient
from lockstep_client.configuration import PayerPart
from lockstep_client.convert import PlanView, plan_from_pb
from lockstep_client.planfile import DraftPlan, PlanFile, Venue, draft
from lockstep_client.signing import gate_signature, payer_permit, payer_signature
from lockstep_kit.amounts import erc20_asset
from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.ids import NONCE_BYTES, SALT_BYTES, TIMELY_BYTES, LegId, timely
from lockstep_kit.permits import Permit
from lockstep_kit.plan import Leg, TokenTransfer, legs_root
from lockstep_kit.signing import Signer
from lockstep_kit.statements import Gate, GateSignature

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

    from lockstep_client.chain_reader import ChainReader

#: How long the maker's signature stays good after the plan's deadline: participants check it when they prepare, and clocks differ.
MAKE_MARGIN: Final = timedelta(minutes=10)


def draw_plan(file: PlanFile, venue: Venue, now: datetime) -> DraftPlan:
    """The plan that a file asks for, with ids and salts freshly drawn; the plan's id begins with the time.

    Raises:
        FieldInvalid: the first rule that is broken.
    """
    plan_id = timely(int(now.timestamp() * 1_000), secrets.token_bytes(TIMELY_BYTES))
    return draft(file, venue, plan_id=plan_id, now=now, draw_salt=lambda: secrets.token_bytes(SALT_BYTES))


def sign_make(draft_plan: DraftPlan, maker: Signer) -> GateSignature:
    """The maker's signature over a plan that nobody has seen yet. It takes as long as the signer does."""
    return gate_signature(
        maker,
        Gate.MAKE,
        draft_plan.header.digest,
        nonce=secrets.token_bytes(NONCE_BYTES),
        expires_at=draft_plan.header.deadline + MAKE_MARGIN,
    )


async def create(client: LockstepClient, draft_plan: DraftPlan, maker: Signer) -> Plan:
    """The plan as the coordinator accepted it, with its locks.

    Raises:
        LockstepError: it was refused.
        FieldInvalid: the coordinator answered with another plan than the one that was signed.
    """
    accepted = await client.create_plan(draft_plan, await asyncio.to_thread(sign_make, draft_plan, maker))
    view = plan_from_pb(accepted)
    require(view.header.digest == draft_plan.header.digest, "plan.header", "must be the plan that was signed")
    check_bound(view)
    return accepted


def check_bound(view: PlanView) -> None:
    """The legs that are shown are the plan's: whoever signs its digest signs these legs.

    Raises:
        FieldInvalid: they are not.
    """
    legs = [each.leg for each in view.legs]
    require(view.header.digest == view.plan_digest, "plan.plan_digest", "must be the digest of the plan's head")
    same = len(legs) == view.header.leg_count and legs_root(legs) == view.header.legs_root
    require(same, "plan.legs", "must be those under the plan's legs_root")


def token_payers(view: PlanView) -> dict[LegId, str]:
    """Each token transfer with the address that must consent to it."""
    return {each.leg.leg_id: each.leg.terms.payer for each in view.legs if isinstance(each.leg.terms, TokenTransfer)}


def unlock(payers: Mapping[str, PayerPart], addresses: set[str]) -> dict[str, LocalAccount]:
    """The payers' keys, decrypted. Takes as long as the keystores' key derivation was made to take.

    Raises:
        FieldInvalid: an address has no keystore, or one cannot be opened.
    """
    for address in sorted(addresses):
        require(address in payers, "payers", f"must name a keystore for {address}, which pays in the plan")
    return {address: _unlock(address, payers[address]) for address in sorted(addresses)}


def _unlock(address: str, part: PayerPart) -> LocalAccount:
    from eth_account import Account

    keystore, password = part.keystore_file.read_text(), part.password_file.read_text().rstrip("\n")
    unlocked: Any = None
    try:
        unlocked = Account.from_key(Account.decrypt(keystore, password))
    except (ValueError, TypeError, KeyError):
        unlocked = None
    # Raised outside the handler: the library's error may quote what is in the file.
    if unlocked is None or unlocked.address != address:
        raise FieldInvalid(
            f"payers.{address}", f"must be a keystore of this address that its password opens ({part.keystore_file})"
        )
    found: LocalAccount = unlocked
    return found


def consent(view: PlanView, accounts: Mapping[str, LocalAccount]) -> dict[LegId, bytes]:
    """The payers' EIP-712 signatures over every token transfer's terms and lock.

    Raises:
        FieldInvalid: the plan is not bound to its legs, or locks repeat.
    """
    check_bound(view)
    require(len({each.lock for each in view.legs}) == len(view.legs), "plan.legs", "must have a lock of its own each")
    return {
        each.leg.leg_id: payer_signature(view.header, each.leg, each.lock, accounts[each.leg.terms.payer])
        for each in view.legs
        if isinstance(each.leg.terms, TokenTransfer)
    }


async def permits(view: PlanView, accounts: Mapping[str, LocalAccount], reader: ChainReader) -> dict[LegId, Permit]:
    """Allowances by signature (EIP-2612) for the token transfers that these accounts pay: one of each account and token, over the sum of its legs.

    A token counts the permits of an account: of several plans that are open at once only the first to be prepared can use its permit. Who settles side
    by side allows the escrow once, before.

    Raises:
        ReadingFailed: the node cannot be asked, or the token knows no permits.
    """
    groups: dict[tuple[str, str, str], list[Leg]] = {}
    for each in view.legs:
        terms = each.leg.terms
        if isinstance(terms, TokenTransfer) and terms.payer in accounts:
            groups.setdefault((erc20_asset(terms.amount.asset).token, terms.escrow, terms.payer), []).append(each.leg)
    found: dict[LegId, Permit] = {}
    for (token, escrow, payer), legs in groups.items():
        domain_separator, nonce = await reader.permit_facts(token, payer)
        value = sum(leg.terms.amount.minor_units for leg in legs if isinstance(leg.terms, TokenTransfer))
        deadline = view.header.deadline
        permit = payer_permit(domain_separator, nonce, escrow=escrow, value=value, deadline=deadline, account=accounts[payer])
        found |= {leg.leg_id: permit for leg in legs}
    return found
