"""What must hold before a token leg is prepared, and before it is promised: the questions that are asked, and what the answers mean. Pure.

The prepare is rehearsed as the operator would send it, and after it, from the escrow, the transfer that a commit would make: so a leg that is sent has code
at its addresses, tokens, an allowance or a permit, an escrow that is not paused, and a payee that the token pays, at the block that was asked about. A node
that cannot rehearse one call after another is asked about each prepare by itself; then the payee is asked about when the hold stands.

A leg that fails there is asked about once more, so that its refusal says what was missing, whatever words its token has for it. Those answers alone refuse
nothing: an entry that is prepared already has taken its tokens, and needs none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from eth_abi.exceptions import DecodingError

from lockstep_chain.book import Landmark, skipped
from lockstep_chain.ports import Question, Told
from lockstep_contracts import escrow, gas, token
from lockstep_contracts.events import decode_error
from lockstep_kit.amounts import AssetId, erc20_asset
from lockstep_kit.participant.ports import LegWork
from lockstep_kit.statements import Refusal
from lockstep_kit.values import dataclass

REASON: Final = "DLT_PREPARE_FAILED"
NO_CODE: Final = "NO_CODE"
PAYEE_BLOCKED: Final = "PAYEE_BLOCKED"

#: Gas of a question that reads, and of each entry that it reads beside.
READ_GAS: Final = 200_000
_ENTRY_GAS: Final = 3_000
#: What the escrow lets a token use in a payout (TRANSFER_GAS_MAX), and what a transaction costs beside it.
_PAYOUT_GAS: Final = 450_000
#: Errors that are not held against a leg: of a batch that ran short of gas, and of an entry that stands already, which is judged as it stands once that is
#: final; this gateway's database may have been put back to before it was made.
_PASSING: Final = frozenset({"GasTooLow", "BadState"})
#: The escrow's own errors: they come before any token is moved.
_BEFORE_THE_TOKEN: Final = frozenset({
    "AccessControlUnauthorizedAccount", "PrepareTooLate", "SignatureInvalid", "TermsConflict", "TermsInvalid",
})  # fmt: skip


class Calls(Protocol):
    """How legs become calls."""

    @property
    def contract(self) -> str:
        """EIP-55 address of the escrow."""
        ...

    @property
    def tokens(self) -> Mapping[str, int]:
        """Tokens that are served: CAIP-19 id -> decimal places."""
        ...

    def terms(self, work: LegWork) -> escrow.LegTerms:
        """What the payer signed."""
        ...

    def permit(self, work: LegWork) -> escrow.Permit | None:
        """The payer's allowance by signature."""
        ...


@dataclass(frozen=True, slots=True)
class EscrowPreconditions:
    """Preconditions of legs of the escrow contract."""

    #: How legs become calls.
    calls: Calls

    def landmarks(self) -> Sequence[Landmark]:
        """The escrow and the tokens must be there, with the decimals that the settings say."""
        asked = [Landmark("escrow", self._read(self.calls.contract, escrow.PAUSED.encode()))]
        for asset, scale in sorted(self.calls.tokens.items()):
            address = erc20_asset(AssetId(asset)).token
            asked.append(Landmark(f"tokens.{asset}", self._read(address, token.encode_decimals()), scale))
        return asked

    def rehearsal(self, batch: Sequence[LegWork], operator: str) -> Sequence[Question]:
        """The batch's prepare, where that leaves its legs, and each leg's payout."""
        terms, permits = [self.calls.terms(work) for work in batch], [self.calls.permit(work) for work in batch]
        prepare = escrow.encode_try_prepare_many(terms, [work.payer_signature for work in batch], permits)
        statuses = escrow.encode_status_of_many([each.leg_key for each in terms])
        limit = gas.prepare_gas(len(batch), sum(permit is not None for permit in permits))
        return [
            Question(self.calls.contract, prepare, operator, limit),
            Question(self.calls.contract, statuses, operator, READ_GAS + _ENTRY_GAS * len(batch)),
            *(self.payout(work) for work in batch),
        ]

    def rehearsed(self, batch: Sequence[LegWork], told: Sequence[Told]) -> Sequence[str]:
        """What speaks against each leg after the rehearsal; "" where nothing does."""
        prepare, standing, *payouts = told
        if not prepare.succeeded:
            return [_error_of(prepare)] * len(batch)
        if _empty(standing):
            return [NO_CODE] * len(batch)
        skips = {each.key: each.detail for each in skipped(self.calls.contract, prepare.logs)}
        statuses = _statuses(standing, len(batch))
        # One of a leg that is not prepared is paid with what is held for others: who may be paid then shows when the hold stands.
        astray = any(
            status is not escrow.LegStatus.PREPARED and _pays(each) for status, each in zip(statuses, payouts, strict=True)
        )
        found = []
        for work, status, payout in zip(batch, statuses, payouts, strict=True):
            error = skips.get(self.calls.terms(work).leg_key, "")
            if not error and status is escrow.LegStatus.PREPARED and not astray:
                why = self.unpayable(work, payout)
                error = f"{PAYEE_BLOCKED}: {why}" if why else ""
            found.append("" if _name(error) in _PASSING else error)
        return found

    def prepares(self, batch: Sequence[LegWork], operator: str) -> Sequence[Question]:
        """Whether the escrow is there, and each leg's prepare by itself."""
        asked = [self._read(self.calls.contract, escrow.PAUSED.encode())]
        for work in batch:
            permit = self.calls.permit(work)
            prepare = escrow.encode_prepare(self.calls.terms(work), work.payer_signature, permit)
            asked.append(Question(self.calls.contract, prepare, operator, gas.prepare_gas(1, permit is not None)))
        return asked

    def prepared(self, told: Sequence[Told | None]) -> Sequence[str]:
        """What speaks against each leg that was asked about by itself; "" where nothing does."""
        there, *alone = told
        return [NO_CODE if _empty(there) else _error_of(each) for each in alone]

    def questions(self, batch: Sequence[LegWork]) -> Sequence[Question]:
        """What each payer has, and what it allows the escrow."""
        asked = []
        for work in batch:
            terms = self.calls.terms(work)
            asked.append(self._read(terms.token, token.encode_balance_of(terms.payer)))
            asked.append(self._read(terms.token, token.encode_allowance(terms.payer, self.calls.contract)))
        return asked

    def refusals(self, batch: Sequence[LegWork], errors: Sequence[str], told: Sequence[Told | None]) -> Sequence[Refusal]:
        """Why each leg against which something speaks is refused."""
        pairs = zip(told[::2], told[1::2], strict=True)
        return [self._refusal(work, error, *pair) for work, error, pair in zip(batch, errors, pairs, strict=True)]

    def payout(self, work: LegWork) -> Question:
        """The transfer that the commit would make."""
        terms = self.calls.terms(work)
        return Question(terms.token, token.encode_transfer(terms.payee, terms.amount), self.calls.contract, _PAYOUT_GAS)

    def unpayable(self, work: LegWork, told: Told | None) -> str:
        """Why the token would not pay the payee; "" where nothing is known against it."""
        if told is None or _pays(told):
            return ""
        return f"the token does not pay {self.calls.terms(work).payee}: {_words(told.output) or 'it gives no reason'}"

    def _read(self, to: str, data: bytes) -> Question:
        return Question(to, data, self.calls.contract, READ_GAS)

    def _refusal(self, work: LegWork, error: str, balance: Told | None, allowance: Told | None) -> Refusal:
        terms, name = self.calls.terms(work), _name(error)
        if name == NO_CODE:
            return Refusal(REASON, NO_CODE, f"there is no contract at the escrow's address {self.calls.contract}")
        if name == PAYEE_BLOCKED:
            return Refusal(REASON, PAYEE_BLOCKED, error.removeprefix(f"{PAYEE_BLOCKED}: "))
        if name == "EnforcedPause":
            return Refusal(REASON, "ESCROW_PAUSED", "the escrow takes nothing at present")
        if _empty(balance):
            return Refusal(REASON, NO_CODE, f"there is no contract at the token's address {terms.token}")
        if name in _BEFORE_THE_TOKEN:
            return Refusal(REASON, name, error)
        has, allowed = _count(balance), _count(allowance)
        if has is not None and has < terms.amount:
            return Refusal(REASON, "BALANCE_LOW", f"the payer has {has} minor units, the leg needs {terms.amount}")
        if allowed is not None and allowed < terms.amount:
            needs = f"the payer allows the escrow {allowed} minor units, the leg needs {terms.amount}"
            if self.calls.permit(work) is None:
                return Refusal(REASON, "ALLOWANCE_LOW", needs)
            return Refusal(REASON, "PERMIT_INVALID", f"{needs}, and the token did not take the permit")
        return Refusal(REASON, name, error)


def _error_of(told: Told | None) -> str:
    """The error that a call reverts with, in words; "" where it does not, where nothing is known of it, or where it says nothing of the leg."""
    error = "" if told is None or told.succeeded else _words(told.output)
    return "" if _name(error) in _PASSING else error


def _name(error: str) -> str:
    return error.split("(", 1)[0].split(":", 1)[0]


def _words(reverted: bytes) -> str:
    error = decode_error(reverted)
    return str(error) if error is not None else f"UNKNOWN_ERROR({reverted.hex()})" if reverted else ""


def _statuses(told: Told, count: int) -> Sequence[escrow.LegStatus]:
    try:
        return escrow.decode_status_of_many(told.output)
    except (DecodingError, ValueError):
        return [escrow.LegStatus.NONE] * count


def _pays(told: Told) -> bool:
    """As the escrow reads a transfer: it must succeed, and answer yes or nothing."""
    return told.succeeded and (not told.output or int.from_bytes(told.output[:32]) == 1)


def _empty(told: Told | None) -> bool:
    """An address without code answers every call with nothing."""
    return told is not None and told.succeeded and not told.output


def _count(told: Told | None) -> int | None:
    return int.from_bytes(told.output[:32]) if told is not None and told.succeeded and len(told.output) >= 32 else None
