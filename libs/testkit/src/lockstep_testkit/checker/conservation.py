"""I2: for each asset, balances and holds are conserved to the minor unit. Gas and fees have accounts of their own, and no plan's. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from lockstep_contracts import events
from lockstep_contracts.escrow import LegStatus
from lockstep_testkit.checker.bank import BankBook
from lockstep_testkit.checker.evidence import ChainBook, Evidence, TokenBook, Violation

NOBODY = "0x" + "0" * 40
#: Kinds of accounts from which the book was opened; money comes from there by an opening, and in no other way.
_SOURCES = frozenset({"CAPITAL"})


def check_conservation(evidence: Evidence) -> Iterator[Violation]:
    """Every token and every cent that appeared, vanished or is held for nobody."""
    for token in evidence.chain.tokens:
        yield from _token(evidence.chain, token)
    yield from _bank(evidence.bank)
    yield from (Violation("I2", "", "", finding) for finding in evidence.ledger_findings)


def _token(chain: ChainBook, token: TokenBook) -> Iterator[Violation]:
    moved: dict[str, int] = defaultdict(int)
    for each in chain.transfers:
        if each.token == token.token:
            moved[each.sender] -= each.amount
            moved[each.recipient] += each.amount
    minted = -moved.pop(NOBODY, 0)
    if token.supply != minted:
        yield Violation("I2", "", "", f"of token {token.token} {minted} were minted, and {token.supply} exist")
    if sum(token.balances.values()) != token.supply:
        held = sum(token.balances.values())
        yield Violation("I2", "", "", f"of token {token.token} {token.supply} exist, and its holders have {held}")
    for owner, balance in token.balances.items():
        if balance != moved[owner]:
            yield Violation("I2", "", "", f"{owner} has {balance} of token {token.token}, and was given {moved[owner]}")
    prepared = _prepared(chain, token)
    if token.locked != prepared:
        yield Violation("I2", "", "", f"the escrow holds {token.locked} of token {token.token}, and its legs say {prepared}")
    if token.balances.get(chain.escrow, 0) < token.locked + token.claimable:
        owed, owned = token.locked + token.claimable, token.balances.get(chain.escrow, 0)
        yield Violation("I2", "", "", f"the escrow owes {owed} of token {token.token}, and has {owned}")


def _prepared(chain: ChainBook, token: TokenBook) -> int:
    terms = {each.leg_key: each.event.terms for each in chain.events if isinstance(each.event, events.Prepared)}
    standing = (terms[key] for key, status in chain.statuses.items() if status is LegStatus.PREPARED and key in terms)
    return sum(each.amount for each in standing if each.token.lower() == token.token)


def _bank(bank: BankBook) -> Iterator[Violation]:
    kinds = {each.account_id: each.kind for each in bank.accounts}
    balances: dict[str, int] = defaultdict(int)
    for posting in bank.postings:
        sums: dict[str, int] = defaultdict(int)
        for line in posting.lines:
            sums[line.currency] += line.amount
            balances[line.account_id] += line.amount
        if any(sums.values()):
            yield Violation("I2", "", "", f"a posting {posting.kind} for payment {posting.uetr} does not sum to zero")
        if posting.uetr and any(kinds.get(line.account_id) in _SOURCES for line in posting.lines):
            yield Violation("I2", "", "", f"payment {posting.uetr} made money out of nothing")
    for account in bank.accounts:
        if account.balance != balances[account.account_id]:
            text = f"account {account.account_id} stands at {account.balance}, and its entries at {balances[account.account_id]}"
            yield Violation("I2", "", "", text)
    held: dict[str, int] = defaultdict(int)
    for payment in bank.payments.values():
        if payment.state == "HELD":
            held[payment.currency] += payment.amount
    for account in bank.accounts:
        if account.kind == "HOLD" and account.balance != held[account.currency]:
            text = f"{account.balance} {account.currency} are held, and payments that are held come to {held[account.currency]}"
            yield Violation("I2", "", "", text)
