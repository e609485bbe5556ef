"""What the bank calls its own accounts. A name that begins with ~ sorts last, so that such an account is locked last: everybody needs it. Pure."""

from __future__ import annotations


def capital_account(currency: str) -> str:
    """The bank's own money, out of which opening balances come."""
    return f"~capital:{currency}"


def hold_account(currency: str) -> str:
    """Held money."""
    return f"~hold:{currency}"


def line_account(account: str) -> str:
    """The liquidity provider's account out of which credit is drawn for an account; its balance is the debt."""
    return f"~credit:{account}"
